"""What schemathesis is told beside its settings, in its own process: how requests are made to get somewhere, one more
check, and an account of what was answered.
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
    """Rules that the description can't say would refuse nearly everything. Three times of four they are kept; what is
    invalid by the description stays so.
    """
    case.headers.pop("X-Tenant", None)  # Who calls says which one is meant, or none.
    if case.path.startswith("/api/admin/tenants"):
        _spare_the_tenants(case)
    number = next(requests)
    if number % 4:
        _renew_key(case, number)
        _give_time(case)
        if isinstance(case.query.get("cursor"), str) and 1 <= len(case.query["cursor"]) <= 1000:
            del case.query["cursor"]


def _spare_the_tenants(case: Case) -> None:
    """Nobody suspends those that the others are tested in, and only one is made, for each has to be dropped."""
    if case.path_parameters.get("slug") in {"eur", "km"}:
        case.path_parameters["slug"] = "spare"
    if isinstance(case.body, dict) and re.fullmatch("[a-z][a-z0-9_]*", str(case.body.get("slug")), re.ASCII):
        case.body = {**case.body, "slug": "asked_for"}


def _renew_key(case: Case, number: int) -> None:
    """schemathesis likes the key "0", and would be told for ever that it was used."""
    key = case.headers.get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch(rf"[\w-]{{1,{LONGEST_KEY_TO_GROW}}}", key, re.ASCII):
        case.headers["Idempotency-Key"] = f"{key}-{os.environ['SCHEMATHESIS_RUN']}-{number}"


def _give_time(case: Case) -> None:
    """Periods that hold a moment, and keys and holds that are not over before they begin."""
    if re.fullmatch(MOMENT, str(case.query.get("to")), re.ASCII):
        case.query["to"] = NEVER
    if isinstance(case.body, dict) and re.fullmatch(MOMENT, str(case.body.get("expiresAt")), re.ASCII):
        soon = datetime.now(UTC) + timedelta(days=1)
        case.body = {**case.body, "expiresAt": soon.isoformat()}


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """A line longer than gunicorn reads is answered by gunicorn, and never comes to the application."""
    return response.status_code != HTTPStatus.REQUEST_URI_TOO_LONG


@schemathesis.check
def status_is_named(ctx: CheckContext, response: Response, case: Case) -> None:
    """`default` describes what nobody foresaw; whatever happens in a test was to be foreseen."""
    if case.method.lower() != case.operation.method.lower():
        return  # It tries a method that is not described at all.
    status = str(response.status_code)
    answers[f"{case.operation.label} {status}"] += 1
    assert status in case.operation.definition.raw["responses"], f"{status} is described by `default` only"


@schemathesis.check
class Account:
    def after_run(self, ctx: CheckContext) -> None:
        """How often which operation answered with which status, for the test to judge."""
        Path(os.environ["SCHEMATHESIS_ACCOUNT"]).write_text(json.dumps(answers))
