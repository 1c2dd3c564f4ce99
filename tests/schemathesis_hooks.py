"""Hooks of schemathesis beside its settings, in its own process: they make requests valid more often, add one check,
and count the answers.
"""

import itertools
import json
import os
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.core.failures import Failure

NEVER = "2999-12-31T23:59:59Z"
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"
LONGEST_KEY_TO_GROW = 100
requests = itertools.count()
answers: Counter[str] = Counter()


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Rules that OpenAPI can't express would refuse nearly all requests. Three times of four the request is made to
    obey them; a request that OpenAPI calls invalid stays invalid.
    """
    case.headers.pop("X-Tenant", None)  # The caller's settings choose the tenant, or none.
    if case.path.startswith("/api/admin/tenants"):
        _spare_the_tenants(case)
    number = next(requests)
    if number % 4:
        _renew_key(case, number)
        _give_time(case)
        if isinstance(case.query.get("cursor"), str) and 1 <= len(case.query["cursor"]) <= 1000:
            del case.query["cursor"]


def _spare_the_tenants(case: Case) -> None:
    """The tenants under test are never suspended, and only one tenant is made, because each has to be dropped."""
    if case.path_parameters.get("tenantId") in {"eur", "km"}:
        case.path_parameters["tenantId"] = "spare"
    if isinstance(case.body, dict) and re.fullmatch("[a-z][a-z0-9_]*", str(case.body.get("id")), re.ASCII):
        case.body = {**case.body, "id": "asked_for"}


def _renew_key(case: Case, number: int) -> None:
    """schemathesis prefers the key "0", which would always be refused as used."""
    key = case.headers.get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch(rf"[\w-]{{1,{LONGEST_KEY_TO_GROW}}}", key, re.ASCII):
        case.headers["Idempotency-Key"] = f"{key}-{os.environ['SCHEMATHESIS_RUN']}-{number}"


def _give_time(case: Case) -> None:
    """Periods that contain a moment, and keys and holds that do not expire before their start."""
    if re.fullmatch(MOMENT, str(case.query.get("to")), re.ASCII):
        case.query["to"] = NEVER
    if isinstance(case.body, dict) and re.fullmatch(MOMENT, str(case.body.get("expiresAt")), re.ASCII):
        soon = datetime.now(UTC) + timedelta(days=1)
        case.body = {**case.body, "expiresAt": soon.isoformat()}


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """gunicorn answers a too long request line itself; the application never gets it."""
    return response.status_code != HTTPStatus.REQUEST_URI_TOO_LONG


@schemathesis.check
def status_is_named(ctx: CheckContext, response: Response, case: Case) -> None:
    """`default` describes unforeseen errors; every error of a test must be foreseen, with its code."""
    if case.method.lower() != case.operation.method.lower():
        return  # schemathesis also tries an undescribed method.
    status = str(response.status_code)
    answers[f"{case.operation.label} {status}"] += 1
    responses = case.operation.definition.raw["responses"]
    assert status in responses, f"{status} is described by `default` only"
    if response.headers.get("content-type") == ["application/problem+json"]:
        code = json.loads(response.content)["code"]
        assert code in responses[status]["x-codes"], f"{status} is described without {code}"


@schemathesis.check
class Account:
    def after_run(self, ctx: CheckContext) -> None:
        """Write how often each operation answered with each status, for the test's assertions."""
        Path(os.environ["SCHEMATHESIS_ACCOUNT"]).write_text(json.dumps(answers))
