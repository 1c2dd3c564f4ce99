"""The operators' scripts on a test's own database, run in this process as from a shell."""

import importlib
from collections.abc import Callable, Mapping

import pytest
from click.testing import CliRunner, Result

from tenant_schemas.testing.plugin import Database
from tests.conftest import SECRET_KEY, SIGNING_KEYS
from tests.factories.backups import KEY_FILE

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
        "BACKUP_KEY_FILE": str(KEY_FILE),
    }


def environment_of_backups(database: Database) -> dict[str, str]:
    """The environment of a backup host: it has the login for backups, and no login that may change data."""
    named = environment(database)
    del named["ADMIN_DATABASE_URL"], named["TENANT_LOGINS"]
    return named | {"BACKUP_DATABASE_URL": database.url(database.roles.backup)}


def script_runner(database: Database, monkeypatch: pytest.MonkeyPatch, tenant_logins: str = "own") -> Run:
    """`run("script", *arguments)`; `input` is typed into standard input."""
    return _runner(environment(database, tenant_logins), monkeypatch)


def backup_script_runner(database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same on a backup host."""
    monkeypatch.delenv("ADMIN_DATABASE_URL", raising=False)
    return _runner(environment_of_backups(database), monkeypatch)


def _runner(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def run(script: str, *arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(importlib.import_module(f"scripts.{script}").main, arguments, input=input)

    return run
