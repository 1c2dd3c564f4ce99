"""The worker writes the counts of refusals whose hour is over."""

from uuid import uuid4

import pytest
from flask import Flask
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
