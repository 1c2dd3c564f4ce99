"""Reading several tenants: one that can't be read hides no other."""

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from app.db import db
from app.tenants.fan_out import Unreadable, read_as
from tenant_schemas import registry
from tenant_schemas.flask import connections
from tenant_schemas.testing.plugin import Database


def test_a_tenant_whose_connection_ends_meanwhile_is_unreadable_and_the_next_is_read(
    app: Flask, database: Database
) -> None:
    def lose() -> None:
        pid = db.session.scalar(sa.text("SELECT pg_backend_pid()"))
        database.as_superuser().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        raise SQLAlchemyError("the read failed")

    with app.test_request_context():
        with connections().shared.begin() as connection:
            eur, km = (registry.get_tenant(connection, slug) for slug in ("eur", "km"))
        with pytest.raises(Unreadable):
            read_as(eur, lose)
        assert read_as(km, lambda: db.session.scalar(sa.text("SELECT 1"))) == 1
