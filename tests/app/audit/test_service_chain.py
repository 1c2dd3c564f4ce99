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
        assert superuser.execute("SELECT * FROM ledger_audit_v4()").fetchall() == []


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
