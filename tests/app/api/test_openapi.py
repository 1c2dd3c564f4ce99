"""/openapi.json describes what the routes do, and /docs works without outside resources."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.api.openapi import document_of
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for
from tests.factories.api import Api

AMOUNTS = ("amount", "balance", "balanceAfter", "depositBalance", "creditLimit", "creditUsed", "held", "available")
Json = dict[str, Any]


@pytest.fixture
def described(api: Api) -> Json:
    response = api.get("/openapi.json")
    assert response.status_code == 200
    described: Json = response.json
    return described


def operations(described: Json) -> Iterator[tuple[str, str, Json]]:
    """Method, path and description of each operation."""
    for path, item in described["paths"].items():
        for method, operation in item.items():
            if method in {"get", "post", "put", "patch", "delete"}:
                yield method.upper(), path, operation


def parts(node: Any) -> Iterator[Json]:
    """Every object in the description."""
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from parts(inner)


def test_it_is_made_once_though_several_ask_for_it_at_once(database: Database) -> None:
    app = create_app(settings_for(database))
    with ThreadPoolExecutor(4) as threads:
        first, *others = threads.map(document_of, [app] * 4)
    assert all(each is first for each in others)


def test_it_is_openapi_3_1(described: Json) -> None:
    assert described["openapi"] == "3.1.0"
    assert described["info"]["title"] == "schema-wallet"


# The path parameters, by the names of Flask's variables.
PARAMETERS = {
    "slug": "tenantId",
    **{
        f"{kind}_id": f"{kind}Id"
        for kind in ("wallet", "transaction", "hold", "order", "product", "document", "key", "user")
    },
    **{f"{kind}_id": f"{kind}Id" for kind in ("invitation", "session", "webhook", "event", "replay")},
    "provisioning_id": "provisioningId",
}


def test_every_route_of_the_api_is_in_it_and_nothing_else(app: Flask, described: Json) -> None:
    routes = {
        (method, re.sub(r"<(?:uuid:)?(\w+)>", lambda found: f"{{{PARAMETERS.get(found[1], found[1])}}}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {(method, path) for method, path, _ in operations(described)} == routes
    assert all(operation["summary"] for _, _, operation in operations(described))


def test_every_operation_has_a_name_of_its_own(described: Json) -> None:
    names = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(names) == len(set(names)), sorted(names)
    assert [name for name in names if not re.fullmatch(r"[a-z][a-zA-Z0-9]*", name)] == []


def test_names_are_spelled_alike(described: Json) -> None:
    """camelCase; an object's own id is `id`, a reference ends with `Id`; a list has `items` and `nextCursor`."""
    schemas = described["components"]["schemas"]
    fields = [(name, about) for each in schemas.values() for name, about in each.get("properties", {}).items()]
    for _, item in described["paths"].items():
        for part in (item, *(item[method] for method in item if method != "parameters")):
            fields += [
                (about["name"], about["schema"]) for about in part.get("parameters", ()) if about["in"] != "header"
            ]
    for name, about in fields:
        assert re.fullmatch(r"[a-z][a-zA-Z0-9]*", name), name
        if about.get("format") == "uuid":
            assert name == "id" or name.endswith("Id"), name
        if about.get("format") == "date-time":
            assert name in {"at", "from", "to", "since", "time"} or name.endswith("At"), name
    for _, path, operation in operations(described):
        answer = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
        shown = schemas.get(answer.get("schema", {}).get("$ref", "").rpartition("/")[2], {}).get("properties", {})
        if operation["operationId"].startswith("list"):
            assert {"items", "nextCursor"} <= set(shown), path


def test_a_field_with_a_default_is_not_needed(described: Json) -> None:
    """Generators require a field that has a `default`, so its description names the default."""
    for schema in described["components"]["schemas"].values():
        assert [name for name, about in schema.get("properties", {}).items() if "default" in about] == []
    login = described["components"]["schemas"]["Login"]["properties"]
    assert login["cookie"]["description"].endswith("; default: false")


def test_every_reference_leads_somewhere(described: Json) -> None:
    references = {part["$ref"] for part in parts(described) if "$ref" in part}
    assert len(references) > 10
    for reference in references:
        found = described
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_every_component_is_used(described: Json) -> None:
    """An unused component misleads generators of clients."""
    used = {part["$ref"].rpartition("/")[2] for part in parts(described) if "$ref" in part}
    assert set(described["components"]["schemas"]) - used == set()


def test_amounts_are_strings_and_never_numbers(described: Json) -> None:
    """Every field with the name of an amount, in requests and answers."""
    seen = set()
    for part in parts(described["components"]["schemas"]):
        for name, about in part.get("properties", {}).items():
            if name in AMOUNTS:
                seen.add(name)
                assert about["type"] in ("string", ["string", "null"]), name
                assert re.fullmatch(about["pattern"], "12.50")
                assert not re.fullmatch(about["pattern"], "1e3")
            assert about.get("type") != "number", name
    assert seen == set(AMOUNTS)


def test_an_amount_is_described_by_what_it_may_be(described: Json) -> None:
    schemas = described["components"]["schemas"]
    for name, field, taken, refused in (
        ("Payment", "amount", ("0.01", "0.5", "12.50", "7"), ("0", "0.00", "-1", "01", "1.", "1e3", "")),
        ("Adjustment", "amount", ("0.01", "-12.50"), ("0", "-0.00", "--1")),
        ("SetPolicy", "maxLimit", ("0", "0.00", "12.50"), ("-1", "")),
    ):
        pattern = schemas[name]["properties"][field]["pattern"]
        assert [value for value in taken if not re.search(pattern, value)] == [], name
        assert [value for value in refused if re.search(pattern, value)] == [], name


# What an answer may come without; all else is always there, though it may be null.
LACKING = {
    **{
        "Tokens": {"accessToken", "refreshToken", "tokenType", "csrfToken"},
        "Outcome": {"replayed", "transaction", "problem"},
        "Statement": {"previousHash"},
        "Movement": {"proof"},
    },
    **{
        **{name: {"dryRun"} for name in ("PostedTransaction", "AuthorisedHold", "PlacedOrder", "CancelledOrder")},
        "Fault": {"pointer"},
        "Problem": {
            *("errors", "currency", "available", "required", "shortfall", "refundable", "capturable", "maxLimit"),
            *(
                "creditUsed",
                "held",
                "balance",
                "productId",
                "limit",
                "movements",
                "item",
                "state",
                "whose",
                "walletId",
                "apiKeys",
                "feedId",
                "trimmedTo",
            ),
        },
        "Tenant": {"currency", "locale"},
        "WalletList": {"unavailable", "total", "isTotalExact"},
    },
    **{
        f"{name}Page": {"total", "isTotalExact"}
        for name in ("AuditEntry", "Member", "StaffHold", "StaffOrder", "StaffTransaction")
    },
}
LACKING |= {"FeedEvent": {"partitionkey", "traceparent"}, "ReplayedEvent": {"sequence", "traceparent"}}
LACKING |= {"LoginAnswer": LACKING["Tokens"] | {"deviceToken"}}


def test_an_answer_has_all_of_its_members(described: Json) -> None:
    schemas = described["components"]["schemas"]
    answers, waiting = set(), [told["responses"] for _, _, told in operations(described)]
    while waiting:
        for part in parts(waiting.pop()):
            name = part.get("$ref", "").rpartition("/")[2]
            if name in schemas and name not in answers | {"Limits"}:  # A tenant has those limits that it was given.
                answers.add(name)
                waiting.append(schemas[name])
    assert len(answers) > 30
    members = {name: set(schemas[name].get("properties", ())) for name in answers}
    lacking = {name: found - set(schemas[name].get("required", ())) for name, found in members.items()}
    assert {name: members for name, members in lacking.items() if members} == LACKING


WANTED = {"required": True}


def test_objects_take_no_fields_but_their_own(described: Json) -> None:
    bodies = [
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for _, _, operation in operations(described)
        if "requestBody" in operation
    ]
    assert len(bodies) > 5
    schemas = described["components"]["schemas"]
    assert [name for name in bodies if schemas[name]["additionalProperties"] is not False] == []
    optional = [
        path for _, path, operation in operations(described) if not operation.get("requestBody", WANTED)["required"]
    ]
    assert optional == ["/api/auth/refresh", "/api/auth/logout"], "a browser has the refresh token in a cookie"


# What answers with something else than JSON, or with other things too.
FILES = {
    **{f"/api/{whose}/statement.csv": {"text/csv"} for whose in ("wallet", "admin/wallets/{walletId}")},
    **{f"/api/{whose}/statement.pdf": {"application/pdf"} for whose in ("wallet", "admin/wallets/{walletId}")},
    "/api/admin/transactions.csv": {"text/csv"},
    "/api/wallet/documents/{documentId}/content": {"application/pdf"},
    "/api/admin/documents/{documentId}/content": {"application/pdf"},
}
STREAMS = {path: {"text/event-stream"} for path in ("/api/wallet/events", "/api/admin/events/stream")}


SENDS_A_MAIL = ("/api/auth/password/forgotten", "/api/me/email")


def test_every_error_is_described_as_a_problem_and_every_file_by_its_media_type(described: Json) -> None:
    shared = described["components"]["responses"]
    for method, path, operation in operations(described):
        assert "default" in operation["responses"], (method, path)
        for status, told in operation["responses"].items():
            response = shared[told["$ref"].rpartition("/")[2]] if "$ref" in told else told
            is_error = status == "default" or int(status) >= 400
            expected = {"application/problem+json"} if is_error else (FILES | STREAMS).get(path, {"application/json"})
            accepted = set() if path in SENDS_A_MAIL else {"application/json"}
            expected = {"202": accepted, "204": set(), "304": set()}.get(status, expected)
            assert set(response.get("content", ())) == expected, (method, path, status)
    problem = described["components"]["schemas"]["Problem"]
    assert {"title", "status", "code", "detail", "errors"} <= set(problem["properties"])


def test_an_answer_304_is_described_with_the_headers_that_it_has(described: Json) -> None:
    found = {}
    for _, path, operation in operations(described):
        if "304" in operation["responses"]:
            headers = {status: set(operation["responses"][status]["headers"]) for status in ("200", "304")}
            assert headers["200"] == headers["304"], path
            found[path] = headers["304"] & {"ETag", "Cache-Control", "Vary"}
    kept = {path for path in found if path.startswith("/api/products")}
    assert len(kept) == 2
    assert found == {path: {"ETag", "Cache-Control"} | ({"Vary"} if path in kept else set()) for path in found}


# What only its owner changes, one field at a time.
LAST_WRITER_WINS = {"/api/me"}


def headers_of(operation: Json) -> dict[str, bool]:
    return {about["name"]: about["required"] for about in operation.get("parameters", ()) if about["in"] == "header"}


def test_the_headers_a_route_needs_are_described(described: Json) -> None:
    for method, path, operation in operations(described):
        headers = headers_of(operation)
        moves_money = re.search(r"/(payments|deposits|refunds|adjustments|holds|capture|bulk|orders|cancel)$", path)
        moves_money = method == "POST" and moves_money is not None
        assert headers.get("Idempotency-Key") is (True if moves_money else None), (method, path)
        has_versions = method in {"PATCH", "PUT"} and path not in LAST_WRITER_WINS
        assert headers.get("If-Match") is (True if has_versions else None), (method, path)
        is_operators = path.startswith("/api/admin/tenants")
        names_tenant = path.startswith(("/api/wallet", "/api/admin/")) and not is_operators
        assert headers.get("X-Tenant") is (False if names_tenant else headers.get("X-Tenant")), (method, path)


OF_EVERY_ANSWER = {
    *("X-Request-ID", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit-Policy", "RateLimit"),
}
# It makes many things, and has no URL of its own.
UNNAMED = {"/api/admin/transactions/bulk"}


TAGGED = {
    ("POST", "/api/admin/wallets"),
    ("GET", "/api/admin/members/{userId}"),
    ("GET", "/api/products/{productId}"),
    ("GET", "/api/admin/webhooks/{webhookId}"),
}


def test_the_headers_of_answers_are_described(described: Json) -> None:
    for method, path, operation in operations(described):
        given = {
            name
            for status, told in operation["responses"].items()
            if status[0] == "2"
            for name, about in told.get("headers", {}).items()
            if "$ref" not in about
        }
        expected = {"Idempotent-Replayed"} if "Idempotency-Key" in headers_of(operation) else set()
        tagged = {"/api/wallet", "/api/products", "/api/admin/wallets/{walletId}", "/api/admin/tenants/{tenantId}"}
        is_versioned = method in {"PATCH", "PUT"} and path not in LAST_WRITER_WINS
        if path in tagged or is_versioned or (method, path) in TAGGED:
            expected |= {"ETag"}
        if (method, path) == ("POST", "/api/admin/tenants") or (
            "201" in operation["responses"] and path not in UNNAMED
        ):
            expected |= {"Location"}
        if "304" in operation["responses"]:
            expected |= {"Cache-Control", *(["Vary"] if path.startswith("/api/products") else [])}
        if path in FILES:
            expected |= {"Content-Disposition"}
        if path.endswith("/statement.pdf"):
            expected |= {"Location", "Retry-After"}
        if path.endswith("/documents/{documentId}") or path == "/api/admin/events":
            expected |= {"Retry-After"}
        assert given == expected, (method, path)
        for status, told in operation["responses"].items():
            shared = {name for name, about in told.get("headers", {}).items() if "$ref" in about}
            expected = {"401": {"WWW-Authenticate"}, "429": {"Retry-After"}, "503": {"Retry-After"}}.get(status, set())
            assert shared == (expected | OF_EVERY_ANSWER if status != "default" else set()), (method, path, status)


def test_words_have_names_that_no_generator_invents(described: Json) -> None:
    """`MemberRole`, invented for `role` of `Member`, replaced the schema `MemberRole` in a generated client."""
    schemas = described["components"]["schemas"]
    for name, schema in schemas.items():
        for field, about in schema.get("properties", {}).items():
            assert len(about.get("enum", ())) <= 1, f"{name}.{field}: use Words"
    for method, path, operation in operations(described):
        for parameter in operation.get("parameters", ()):
            assert "enum" not in parameter["schema"], (method, path, parameter["name"])
    plain = [re.sub("[^a-z]", "", name.lower()) for name in schemas]
    assert len(plain) == len(set(plain))


def test_a_problem_has_a_code_of_the_list_and_typed_members(described: Json) -> None:
    schemas = described["components"]["schemas"]
    codes = set(schemas["ProblemCode"]["enum"])
    for method, path, operation in operations(described):
        assert [named - codes for named in refusals_of(operation).values() if named - codes] == [], (method, path)
    assert schemas["Problem"]["properties"]["code"]["$ref"] == "#/components/schemas/ProblemCode"
    assert schemas["Problem"]["properties"]["shortfall"]["pattern"]
    assert schemas["Outcome"]["properties"]["problem"]["$ref"] == "#/components/schemas/Problem"


TAKE_COOKIES = ("/api/auth/login", "/api/auth/refresh", "/api/auth/logout")
BEFORE_A_LOGIN = ("/api/auth/password/forgotten", "/api/auth/password/reset", "/api/auth/email/confirm")
BEFORE_A_LOGIN += ("/api/auth/invitations/accept",)


def refusals_of(operation: Json) -> dict[str, set[str]]:
    return {status: set(told["x-codes"]) for status, told in operation["responses"].items() if "x-codes" in told}


def test_an_operation_names_the_refusals_that_it_can_give_and_no_others(described: Json) -> None:
    """Every test that meets a refusal compares it with these names: `tests/factories/refusals.py`."""
    paths = described["paths"]
    assert refusals_of(paths["/api/wallet/payments"]["post"])["409"] == {
        *("insufficient_funds", "wallet_frozen", "wallet_closed", "order_already_paid"),
    }
    assert refusals_of(paths["/api/wallet"]["get"]) == {
        "400": {"malformed_request", "tenant_required", "tenant_ambiguous"},
        "401": {"token_missing", "token_invalid", "token_expired", "session_over"},
        "403": {"member_required"},
        "404": {"tenant_not_found"},
        "422": {"validation_failed"},
        "429": {"rate_limited", "too_many_concurrent_requests"},
        "500": {"schema_missing"},
        "503": {
            *("deadline_exceeded", "database_unavailable", "busy", "identity_provider_unavailable", "schema_behind"),
            "tenant_misconfigured",
        },
    }


def test_the_refusals_of_an_operation_follow_from_what_it_takes(described: Json) -> None:
    for method, path, operation in operations(described):
        refusals = refusals_of(operation)
        codes = {code for codes in refusals.values() for code in codes}
        takes_body, takes_version = "requestBody" in operation, "If-Match" in headers_of(operation)
        assert {"413", "415"}.issubset(refusals) is takes_body, (method, path)
        assert {"412", "428"}.issubset(refusals) is takes_version, (method, path)
        assert ("idempotency_key_required" in codes) is ("Idempotency-Key" in headers_of(operation)), (method, path)
        is_open = operation.get("security") == []
        assert ("token_expired" in codes) is not is_open, (method, path)
        takes_cookies = not is_open or path in TAKE_COOKIES
        assert ("csrf_required" in codes) is (takes_cookies and method != "GET"), (method, path)
        assert ("not_found" in codes) is ("Id}" in path and "{tenantId}" not in path), (method, path)


def test_a_login_can_name_a_tenant_and_says_so(described: Json) -> None:
    assert "X-Tenant" in headers_of(described["paths"]["/api/auth/login"]["post"])


def test_every_route_but_those_before_a_login_wants_a_token(described: Json) -> None:
    assert described["security"] == [{"token": []}, {"cookie": [], "csrf": []}]
    schemes = described["components"]["securitySchemes"]
    assert schemes["token"]["scheme"] == "bearer"
    assert (schemes["cookie"]["name"], schemes["csrf"]["name"]) == ("__Host-access", "X-CSRF-Token")
    open_to_all = [path for _, path, operation in operations(described) if operation.get("security") == []]
    assert set(open_to_all) == {*TAKE_COOKIES, *BEFORE_A_LOGIN}
    assert all(operation.get("security", []) == [] for _, _, operation in operations(described))
