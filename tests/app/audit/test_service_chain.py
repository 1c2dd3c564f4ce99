"""The audit log is append-only, and the audit command finds and names a superuser's change."""

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from tenant_schemas.testing.plugin import Database
from tests.app.ledger.test_audit import audit
from tests.factories.people import People

Superuser = psycopg.Connection[TupleRow]


@pytest.fixture
def superuser(fresh_app: Flask, fresh_database: Database) -> Superuser:
    """A superuser in km's schema with triggers disabled; the log has five entries."""
    tenant = fresh_database.as_tenant("km")
    for number in range(4):
        tenant.execute(
            "SELECT audit_note_v1(%s)",
            (Jsonb({"action": f"test.{number}", "actor_id": str(uuid4()), "after": {"a": None}}),),
        )
    people = People(fresh_app)
    people.wallet(people.make(km="member"), "km", credit_limit_minor=100)
    connection = fresh_database.as_superuser()
    connection.execute("SET search_path TO km_schema")
    connection.execute("SET session_replication_role TO replica")
    return connection


TAMPERING = {
    "a field changed": ("UPDATE audit_log SET address = '198.51.100.1' WHERE seq = 3", "entry 3: hash"),
    "a null filled": ("UPDATE audit_log SET request_id = 'x' WHERE seq = 2", "entry 2: hash"),
    "a before changed": ("UPDATE audit_log SET before = '{}' WHERE seq = 2", "entry 2: hash"),
    "an after changed": ("UPDATE audit_log SET after = '{}' WHERE seq = 2", "entry 2: hash"),
    "a null made null": ("UPDATE audit_log SET before = 'null' WHERE seq = 2", "entry 2: hash"),
    "a time changed": ("UPDATE audit_log SET at = at - interval '1 h' WHERE seq = 4", "entry 4: time runs backwards"),
    "the first removed": ("DELETE FROM audit_log WHERE seq = 1", "entry 2: seq has a gap"),
    "one in the middle removed": ("DELETE FROM audit_log WHERE seq = 3", "entry 4: seq has a gap"),
    "the last removed": ("DELETE FROM audit_log WHERE seq = 5", "last entry is 4, and its chain says 5"),
    "all removed": ("DELETE FROM audit_log", "last entry is 0, and its chain says 5"),
    "two exchanged": (
        "UPDATE audit_log SET seq = CASE seq WHEN 2 THEN -3 ELSE -2 END WHERE seq IN (2, 3);"
        " UPDATE audit_log SET seq = -seq WHERE seq < 0",
        "entry 2: hash",
    ),
    "the head set back": ("UPDATE audit_chain SET last_seq = 4", "last entry is 5, and its chain says 4"),
    "the head removed": ("DELETE FROM audit_chain", "last entry is 5, and its chain says"),
}


@pytest.mark.parametrize(("statement", "finding"), TAMPERING.values(), ids=TAMPERING.keys())
def test_each_tampering_is_found_and_its_entry_is_named(
    fresh_app: Flask, superuser: Superuser, statement: str, finding: str
) -> None:
    assert audit(fresh_app)[0] == 0
    superuser.execute(statement)  # type: ignore[arg-type]
    code, said = audit(fresh_app)
    assert code == 1
    assert "eur: sound" in said
    assert f"audit log{' ' if finding.startswith('entry') else chr(39) + 's '}{finding}" in said


def test_a_setting_of_the_session_changes_no_hash(fresh_app: Flask, superuser: Superuser) -> None:
    for setting in ("TimeZone TO 'Asia/Kathmandu'", "DateStyle TO 'SQL, DMY'", "extra_float_digits TO 0"):
        superuser.execute(f"SET {setting}".encode())
        assert superuser.execute("SELECT * FROM ledger_audit_v5()").fetchall() == []


@pytest.mark.parametrize("slug", ["eur", "km"])
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO audit_log (action) VALUES ('mine')",
        "UPDATE audit_log SET action = 'other'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "UPDATE audit_chain SET last_seq = 0",
        "DELETE FROM audit_chain",
        "INSERT INTO audit_chain VALUES (true, 0, now(), '')",
        "SELECT * FROM audit_chain FOR UPDATE",
    ],
)
def test_a_tenants_login_only_appends_and_only_by_the_function(database: Database, slug: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.as_tenant(slug).execute(statement.encode())


def test_what_an_entry_says_of_its_place_is_not_the_writers_to_say(database: Database) -> None:
    forged: dict[str, Any] = {"seq": 1, "at": "2000-01-01", "hash": "\\x00", "id": str(uuid4())}
    forged["action"] = "test.forged"
    connection = database.as_tenant("eur")
    (before,) = connection.execute("SELECT last_seq FROM audit_chain").fetchone() or (0,)
    connection.execute("SELECT audit_note_v1(%s::jsonb)", (Jsonb(forged),))
    row = connection.execute("SELECT seq, at > now() - interval '1 hour' FROM audit_log WHERE action = 'test.forged'")
    assert row.fetchall() == [(before + 1, True)]


WALLET_LIMIT: dict[str, Any] = {"creditLimitMinor": 7, "status": "active"}
FORGED: dict[str, tuple[str, dict[str, Any]]] = {
    "an action of no name": ("audit_log_action_is_name", {"action": "Look at me"}),
    "an action of many characters": ("audit_log_action_is_name", {"action": "a" * 65}),
    "a refusal of no code": ("audit_log_refusal_is_code", {"refusal": "no, never"}),
    "a list as state": ("audit_log_state_is_plain", {"after": [1]}),
    "a text as state": ("audit_log_state_is_plain", {"before": "x"}),
    "a number of more than 64 bits": ("audit_log_state_is_plain", {"after": {"a": [{"b": 2**63}]}}),
    "a deep state": ("audit_log_state_is_plain", {"after": {"a": {"b": {"c": {"d": {"e": {"f": {}}}}}}}}),
    "a large state": ("audit_log_state_is_plain", {"after": {"a": "x" * 20_000}}),
    "a member of no name": ("audit_log_state_is_plain", {"after": {"a": {"<script>": 1}}}),
    "a policy": ("audit_log_agrees_with_tables", {"action": "credit_policy.set", "after": {"currency": "EUR"}}),
    "a limit": ("audit_log_agrees_with_tables", {"wallet_id": "own", "after": WALLET_LIMIT}),
    "a limit before": ("audit_log_agrees_with_tables", {"wallet_id": "own", "before": WALLET_LIMIT}),
    "an opened wallet": (
        "audit_log_agrees_with_tables",
        {"action": "wallet.open", "wallet_id": "own", "after": WALLET_LIMIT},
    ),
    "a configured wallet": ("audit_log_agrees_with_tables", {"action": "wallet.configure", "wallet_id": "own"}),
}


@pytest.mark.parametrize(("rule", "forged"), FORGED.values(), ids=FORGED)
def test_an_entry_has_a_known_form_and_contradicts_no_table(
    people: People, database: Database, rule: str, forged: dict[str, Any]
) -> None:
    entry = {"action": "look", **forged}
    if entry.get("wallet_id"):
        entry["wallet_id"] = str(people.wallet(people.make(eur="member"), "eur"))
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        database.as_tenant("eur").execute("SELECT audit_note_v1(%s)", (Jsonb(entry),))
    assert refused.value.diag.constraint_name == rule


def test_texts_of_a_request_are_cut_and_cleaned_whoever_writes_the_entry(database: Database) -> None:
    connection = database.as_tenant("eur")
    text = "a\nb\u202ec" + "d" * 1_000
    connection.execute('SET audit.actor TO \'{"address": "x\\ny"}\'')
    connection.execute(
        "SELECT audit_note_v2(%s)", (Jsonb({"action": "test.cut", "subject": text, "request_id": text}),)
    )
    query = (
        "SELECT left(subject, 6), length(subject), length(request_id), address FROM audit_log WHERE action = 'test.cut'"
    )
    assert connection.execute(query).fetchone() == ("a?b?cd", 300, 100, "x?y")
