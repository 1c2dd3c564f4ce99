"""The worker writes the counts of refusals whose hour is over."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from flask import Flask
from psycopg.errors import CheckViolation
from psycopg.types.json import Jsonb

from app.audit.refusal_worker import sweep
from app.audit.service import end_refusal_windows
from app.db import db
from tenant_schemas.flask import tenant_context
from tenant_schemas.testing.plugin import Database


@pytest.mark.parametrize("is_over", [True, False])
def test_a_count_is_written_when_its_hour_is_over_and_once(
    fresh_app: Flask, fresh_database: Database, is_over: bool
) -> None:
    tenant, actor = fresh_database.as_tenant("km"), uuid4()
    entry = {"action": "look", "actor_id": str(actor), "actor_kind": "user", "refusal": "admin_required"}
    for _ in range(12):
        tenant.execute("SELECT audit_refused_v1(%s)", (Jsonb(entry),))
    if is_over:
        fresh_database.as_superuser().execute("UPDATE km_schema.audit_refusals SET began_at = now() - interval '1 h'")
    with fresh_app.app_context(), tenant_context("km"):
        end_refusal_windows()
        db.session.commit()
    with fresh_app.app_context():
        sweep()
    query = "SELECT action, subject, after -> 'counted' FROM audit_log WHERE actor_id = %s ORDER BY seq OFFSET 10"
    assert tenant.execute(query, (actor,)).fetchall() == ([("requests.refused", "look", 2)] if is_over else [])
    assert tenant.execute("SELECT count(*) FROM audit_refusals").fetchall() == [(0 if is_over else 1,)]


@pytest.mark.parametrize(
    ("wrong", "constraint"),
    [
        ({"refusal": "NOT A CODE"}, "audit_log_refusal_is_code"),
        ({"refusal": "x" * 65}, "audit_log_refusal_is_code"),
        ({"action": "look\n"}, "audit_log_action_is_name"),
        ({"actor_kind": "robot"}, "audit_log_actor_kind_known"),
    ],
    ids=str,
)
def test_a_refusal_that_the_log_would_refuse_is_not_counted_either(
    database: Database, wrong: dict[str, str], constraint: str
) -> None:
    tenant = database.as_tenant("km")
    entry = {"action": "look", "actor_id": str(uuid4()), "actor_kind": "user", "refusal": "forbidden"}
    for _ in range(10):
        tenant.execute("SELECT audit_refused_v1(%s)", (Jsonb(entry),))
    with pytest.raises(CheckViolation) as caught:
        tenant.execute("SELECT audit_refused_v1(%s)", (Jsonb(entry | wrong),))
    assert caught.value.diag.constraint_name == constraint
    query = "SELECT action, actor_kind, refusal, refused FROM audit_refusals WHERE actor_id = %s"
    assert tenant.execute(query, (entry["actor_id"],)).fetchall() == [("look", "user", "forbidden", 10)]


def test_a_row_that_the_log_would_refuse_stops_no_other(fresh_database: Database) -> None:
    """A row of before the rule, as a restored tenant may have it."""
    superuser, actors = fresh_database.as_superuser(), sorted(uuid4() for _ in range(3))
    for actor, refusal in zip(actors, ("admin_required", "NOT A CODE", "forbidden"), strict=True):
        superuser.execute(
            "INSERT INTO km_schema.audit_refusals (actor_id, action, actor_kind, refusal, refused, began_at)"
            " VALUES (%s, 'look', 'user', %s, 12, now() - interval '1 h')",
            (actor, refusal),
        )
    tenant = fresh_database.as_tenant("km")
    assert tenant.execute("SELECT audit_refusals_end_v1()").fetchall() == [(3,)]
    query = "SELECT actor_id, refusal, after -> 'counted' FROM audit_log WHERE action = 'requests.refused'"
    assert sorted(tenant.execute(query).fetchall()) == [
        (actors[0], "admin_required", 2),
        (actors[1], "unreadable", 2),
        (actors[2], "forbidden", 2),
    ]


def test_refusals_at_once_are_each_an_entry_or_counted(fresh_database: Database) -> None:
    """Two callers, each with several connections, while windows end all the time."""
    callers = [uuid4(), uuid4()]

    def refuse(number: int) -> None:
        entry = {"action": "look", "actor_id": str(callers[number % 2]), "actor_kind": "user", "refusal": "forbidden"}
        connection = fresh_database.as_tenant("km")
        for _ in range(20):
            connection.execute("SELECT audit_refused_v1(%s)", (Jsonb(entry),))

    superuser = fresh_database.as_superuser()
    with ThreadPoolExecutor(8) as pool:
        working = [pool.submit(refuse, number) for number in range(8)]
        while not all(each.done() for each in working):
            superuser.execute(
                "UPDATE km_schema.audit_refusals SET began_at = now() - interval '1 h' WHERE refused > 10"
            )
        for each in working:
            each.result()
    query = """
        SELECT (SELECT count(*) FROM audit_log WHERE refusal = 'forbidden' AND action = 'look')
            + (SELECT coalesce(sum((after -> 'counted')::int), 0) FROM audit_log WHERE action = 'requests.refused')
            + (SELECT coalesce(sum(greatest(refused - 10, 0)), 0) FROM audit_refusals)"""
    assert fresh_database.as_tenant("km").execute(query).fetchall() == [(160,)]
