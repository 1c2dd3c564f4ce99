"""The API's description, made without a database: an application that is only asked for its OpenAPI document."""

import os
from unittest import mock

import orjson

from app import create_app
from app.api.openapi import document_of
from app.config import read_settings
from app.signing_keys import dump_keys, rotated

# Settings that an application needs to start. It never connects, and signs nothing.
_PLACEHOLDERS = {
    "DATABASE_URL": "postgresql://nobody@localhost/none",
    "TENANT_SECRET": "x" * 32,
    "SECRET_KEY": "x" * 32,
    "SIGNING_KEYS": dump_keys(rotated(None, 1)),
    "LOG_LEVEL": "error",
}


def api_description() -> bytes:
    """The document of /openapi.json, as JSON."""
    with mock.patch.dict(os.environ, _PLACEHOLDERS, clear=True):
        settings = read_settings()
    return orjson.dumps(document_of(create_app(settings)))
