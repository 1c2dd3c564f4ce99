"""The chapter docs/recovery.md, walked: the server is lost, and users, keys, products and money come back on an empty
one.
"""

import json
import os
import re
import secrets
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from argon2 import PasswordHasher
from flask import Flask

from app.config import ROOT
from tenant_schemas import embedded
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.application import running
from tests.factories.bundles import SLUG, Furnished, audit, balance, world
from tests.factories.people import People, Person
from tests.factories.script_runner import Run, script_runner
from tests.factories.second_factor import Authenticator, switch_on

NEWEST = '"$(ls -d "$BACKUPS"/shared-* | tail -1)"'
PASSWORD = "a password from before the loss"


@dataclass(frozen=True, slots=True)
class Lives:
    """Who must be able to go on: a member with a second factor, an operator, a service, and the people of the furnished
    tenant.
    """

    furnished: Furnished
    member: Person
    authenticator: Authenticator
    operator: Person
    service: Person


@pytest.fixture
def lives(fresh_database: Database, furnished: Furnished, cheap_passwords: None) -> Lives:
    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    with running(fresh_database) as app:
        people, api = People(app), Api(app)
        member = people.make(password_hash=hashed, **{SLUG: "member", "eur": "member"})
        people.wallet(member, SLUG, balance_minor=5_000)
        authenticator, _ = switch_on(api, member, PASSWORD)
        operator = people.make(password_hash=hashed, is_operator=True)
        expires_at = (datetime.now(UTC) + timedelta(days=30)).isoformat()
        key = {"name": "till", "role": "service", "expiresAt": expires_at}
        made: Any = api.post("/api/admin/api-keys", furnished.admin, SLUG, json=key).json
    return Lives(furnished, member, authenticator, operator, Person(UUID(made["id"]), "", made["key"]))


@pytest.fixture
def new_server(fresh_database: Database) -> Iterator[Database]:
    """An empty server, on which the installation will have the same secrets and other passwords. Its folder is none of
    pytest's, because each session of pytest makes those private again.
    """
    with tempfile.TemporaryDirectory(prefix="new-server-") as folder:
        server = embedded.start(Path(folder))
        try:
            url = server.superuser_url()
            with psycopg.connect(url) as superuser:
                superuser.execute("REVOKE CONNECT, TEMP ON DATABASE postgres, template1 FROM PUBLIC")
            passwords = {name: secrets.token_urlsafe() for name in fresh_database.passwords}
            with closing(replace(fresh_database, name="wallet", server_url=url, passwords=passwords, _open=[])) as made:
                yield made
        finally:
            server.release()


def chapter(heading: str) -> list[str]:
    """The commands of a section of docs/recovery.md."""
    text = (ROOT / "docs" / "recovery.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def walk(heading: str, run: Run, app: Flask | None = None) -> str:
    """Run the section's commands; returns what they print."""
    said = []
    for line in chapter(heading):
        newest = max(map(str, Path(os.environ["BACKUPS"]).glob("shared-*")), default="")
        words = shlex.split(os.path.expandvars(line.replace(NEWEST, newest)))
        if words[0] == "flask":
            assert app is not None
            done = app.test_cli_runner().invoke(args=words[1:])
        else:
            done = run(words[2].removeprefix("scripts."), *words[3:])
        assert done.exit_code == 0, (line, done.output)
        said.append(done.output)
    return "\n".join(said)


def product_of(database: Database) -> str:
    """A product of the furnished tenant's catalogue."""
    ((product_id,),) = database.as_superuser().execute("SELECT id FROM shared.products LIMIT 1")
    return str(product_id)


def log_in(api: Api, email: str, code: str | None = None) -> Any:
    return api.post("/api/auth/login", json={"email": email, "password": PASSWORD} | ({"code": code} if code else {}))


def test_a_lost_server_comes_back_and_goes_on(
    lives: Lives, fresh_database: Database, new_server: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUPS", str(tmp_path / "bundles"))
    walk("Before: what to keep, and where", script_runner(fresh_database, monkeypatch))
    was = balance(fresh_database, SLUG, lives.furnished.wallet_id)

    run = script_runner(new_server, monkeypatch)
    monkeypatch.setenv("SUPERUSER_DATABASE_URL", new_server.server_url)
    assert "3 of 3 tenants are there." in walk("From bundles", run)
    monkeypatch.delenv("SUPERUSER_DATABASE_URL")

    with running(new_server) as app:
        go_on(app, lives, new_server)
        assert balance(new_server, SLUG, lives.furnished.wallet_id) == was
        assert audit(new_server, SLUG) == []
        walk("Afterwards", run, app)


def go_on(app: Flask, lives: Lives, database: Database) -> None:
    """Log in with the password of before, pay, order, and read as a service and as an operator."""
    api, email = Api(app), lives.member.email
    assert log_in(api, email).status_code == 401
    token = log_in(api, email, lives.authenticator.code()).json["accessToken"]
    member = replace(lives.member, token=token)
    assert api.get("/api/wallet", member, SLUG).json["depositBalance"] == "50.00"
    paid = api.post("/api/wallet/payments", member, SLUG, json={"amount": "1.25"})
    assert paid.status_code == 201, paid.text
    items = [{"productId": product_of(database), "quantity": 1}]
    ordered = api.post("/api/orders", member, SLUG, json={"items": items})
    assert ordered.status_code == 201, ordered.text
    wallet = api.get(f"/api/admin/wallets/{lives.furnished.wallet_id}", lives.service, SLUG)
    assert wallet.status_code == 200, wallet.text
    operator = replace(lives.operator, token=log_in(api, lives.operator.email).json["accessToken"])
    assert {each["id"] for each in api.get("/api/admin/tenants", operator).json["items"]} == {"eur", "km", SLUG}


def test_an_installation_that_is_there_is_not_touched(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = script_runner(fresh_database, monkeypatch)
    assert run("backup_tenant", "--all", "--to", str(tmp_path)).exit_code == 0
    before = world(fresh_database)
    again = run("restore_installation", str(tmp_path), "--json")
    assert again.exit_code == 0, again.output
    told = json.loads(again.output)
    assert told["shared"] is None
    assert [(each["slug"], each["status"]) for each in told["tenants"]] == [("eur", "here"), ("km", "here")]
    assert world(fresh_database) == before


def test_a_folder_without_a_bundle_of_shared_and_a_wrong_key_are_told(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = script_runner(fresh_database, monkeypatch)
    (tmp_path / "none").mkdir()
    without = run("restore_installation", str(tmp_path / "none"))
    assert (without.exit_code, "no bundle of the schema shared" in without.output) == (1, True)
    assert run("backup_tenant", "--shared", "--to", str(tmp_path / "own")).exit_code == 0
    monkeypatch.setenv("BACKUP_KEY_FILE", "")
    foreign = run("restore_installation", str(tmp_path / "own"))
    assert (foreign.exit_code, "Set BACKUP_KEY_FILE" in foreign.output) == (1, True)
