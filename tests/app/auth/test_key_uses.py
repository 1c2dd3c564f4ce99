"""When a key was used is noted without a statement in the request, and written by a worker that waits for nothing."""

from uuid import UUID

from flask import Flask

from app.auth import key_uses
from tenant_schemas.testing.plugin import Database
from tests.app.api_keys.test_routes import KEYS, listed, service_of
from tests.factories.api import Api
from tests.factories.people import People


def write(app: Flask) -> None:
    with app.app_context():
        key_uses.sweep()


def test_a_use_is_shown_once_it_is_written(app: Flask, api: Api, people: People) -> None:
    admin = people.make(eur="admin")
    key, unused = service_of(api, admin, "eur"), service_of(api, admin, "eur")

    def used() -> dict[UUID, str | None]:
        return {UUID(item["id"]): item["lastUsedAt"] for item in listed(api, admin, "eur")}

    assert api.get("/api/admin/wallets", key).status_code == 200
    assert used()[key.user_id] is None
    write(app)
    first = used()
    assert (first[key.user_id] or "").endswith("Z")
    assert first[unused.user_id] is None
    api.get(KEYS, key)
    write(app)
    assert (used()[key.user_id] or "") >= (first[key.user_id] or "")


def test_a_locked_key_is_left_to_the_next_use(app: Flask, api: Api, people: People, database: Database) -> None:
    admin = people.make(eur="admin")
    key, other = service_of(api, admin, "eur"), service_of(api, admin, "eur")
    for each in (key, other):
        api.get("/api/admin/wallets", each)
    with database.as_superuser() as superuser, superuser.transaction():
        superuser.execute("SELECT FROM shared.api_keys WHERE id = %s FOR UPDATE", (key.user_id,))
        write(app)
    shown = {UUID(item["id"]): item["lastUsedAt"] is not None for item in listed(api, admin, "eur")}
    assert (shown[key.user_id], shown[other.user_id]) == (False, True)


def test_an_older_note_replaces_no_newer_one(app: Flask, api: Api, people: People, database: Database) -> None:
    admin = people.make(eur="admin")
    key = service_of(api, admin, "eur")
    api.get("/api/admin/wallets", key)
    with database.as_superuser() as superuser:
        later = (
            "UPDATE shared.api_keys SET last_used_at = now() + interval '1 hour' WHERE id = %s RETURNING last_used_at"
        )
        before = superuser.execute(later, (key.user_id,)).fetchall()
        write(app)
        query = "SELECT last_used_at FROM shared.api_keys WHERE id = %s"
        assert superuser.execute(query, (key.user_id,)).fetchall() == before
