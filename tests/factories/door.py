"""The operators' door on a test's own database: its scripts, run in this process as they would be from a shell."""

import importlib
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from tenant_schemas.testing.plugin import Database
from tests.conftest import SECRET_KEY, SIGNING_KEYS

Run = Callable[..., Result]


def environment(database: Database, tenant_logins: str = "own") -> dict[str, str]:
    """The environment of an installation on this database."""
    return {
        "DATABASE_URL": database.app_url,
        "ADMIN_DATABASE_URL": database.admin_url,
        "TENANT_SECRET": database.tenant_secret,
        "SECRET_KEY": SECRET_KEY,
        "SIGNING_KEYS": SIGNING_KEYS,
        "TENANT_LOGINS": tenant_logins,
    }


def door(database: Database, monkeypatch: pytest.MonkeyPatch, tenant_logins: str = "own") -> Run:
    """`run("script", *arguments)`; `input` is what a person would type."""
    for name, value in environment(database, tenant_logins).items():
        monkeypatch.setenv(name, value)

    def run(script: str, *arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(importlib.import_module(f"scripts.{script}").main, arguments, input=input)

    return run
