"""Which tenants have a queue."""

from flask import Flask

from app.queue_commands.tenants import tenants_with_senders
from tenant_schemas.testing.plugin import Database
from tests.factories.application import running
from tests.factories.commands import Sender, make_sender


def test_a_queue_is_chosen_by_its_tenants_slug(app: Flask, sender: Sender) -> None:
    assert tenants_with_senders(app, ["eur", "unknown"]) == {sender.tenant_id: "eur"}
    assert tenants_with_senders(app, ["unknown"]) == {}


def test_only_active_tenants_with_a_services_key_have_a_queue(fresh_database: Database) -> None:
    with running(fresh_database) as app:
        make_sender(app, "km", role="auditor")
        sender = make_sender(app, "eur")
        assert tenants_with_senders(app, []) == {sender.tenant_id: "eur"}
        with fresh_database.as_superuser() as connection:
            connection.execute("UPDATE shared.api_keys SET revoked_at = now()")
        assert tenants_with_senders(app, []) == {}
