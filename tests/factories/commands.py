"""Services that send commands: an API key of a tenant, and the messages that it would send."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
from flask import Flask

from app.api_keys.service import create_key
from app.auth.actors import Actor, ActorKind
from app.db import db
from tenant_schemas.flask import tenant_context
from tests.factories.people import People

SOURCE = "/shop"


@dataclass(frozen=True, slots=True)
class Sender:
    """A service with an API key. `user_id` is the name of its user at the broker."""

    tenant_id: UUID
    key_id: UUID
    keeper_id: UUID

    @property
    def user_id(self) -> str:
        return f"wk_{self.key_id.hex}"


def make_sender(app: Flask, slug: str = "eur", role: str = "service") -> Sender:
    admin = People(app).make(**{slug: "admin"}).user_id
    with app.app_context(), tenant_context(slug) as tenant:
        actor = Actor(ActorKind.USER, admin, request_id="test")
        key, _ = create_key("shop", role, datetime.now(UTC) + timedelta(days=1), actor=actor)
        key_id = key.id
        db.session.commit()
    return Sender(tenant.id, key_id, admin)


def command(verb: str, id_: str | None = None, *, source: str = SOURCE, **data: Any) -> bytes:
    """The body of a message."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": id_ or uuid4().hex,
            "source": source,
            "type": f"wallet.{verb}.requested.v1",
            "data": {name: str(value) for name, value in data.items()},
        }
    )
