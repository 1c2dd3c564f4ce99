"""A throw-away installation on an embedded server with PostgreSQL's default durability, set up as a real one is.

Only users, memberships, wallets and a large deposit for each wallet are made by shortcuts, one statement for all.
"""

import os
import platform
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from app.auth.tokens import TokenMint
from app.config import DATABASE_NAME, Settings, read_settings
from app.db import admin_engine
from app.signing_keys import dump_keys, key_source, rotated
from app.tenancy import MIGRATIONS
from scripts import serve
from scripts.benchmarks.clients import HOST
from scripts.benchmarks.measurement import BenchmarkFailed
from scripts.create_roles import create_roles
from scripts.seed_demo import TENANTS
from tenant_schemas import embedded
from tenant_schemas.lifecycle.provision import provision
from tenant_schemas.migrations.runner import migrate
from tenant_schemas.roles import tenant_password
from tenant_schemas.tenant import Tenant

BALANCE_MINOR = 10**12
TOKEN_SECONDS = 86_400
DURABILITY = ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method")


@dataclass(frozen=True, slots=True)
class Installation:
    """A server with the service's database and two tenants. Each tenant has a wallet for every member."""

    server: embedded.EmbeddedServer
    settings: Settings
    tenants: Sequence[Tenant]

    @property
    def currencies(self) -> dict[str, str]:
        return {tenant.slug: tenant.settings["currency"] for tenant in self.tenants}

    @property
    def postmaster_pid(self) -> int:
        return int((self.server.folder / "data" / "postmaster.pid").read_text().split()[0])

    def tenant_url(self, tenant: Tenant) -> str:
        """The URL of the tenant's own login."""
        password = tenant_password(self.settings.tenant_secret, tenant.id, tenant.login_epoch)
        return self.server.url(tenant.role_name, password, DATABASE_NAME)

    def member_tokens(self, count: int) -> list[str]:
        """Access tokens of the first members, issued without a login."""
        mint = TokenMint(key_source("", self.settings.signing_keys), self.settings.token_seconds)
        return [mint.issue(UUID(int=number), None, UUID(int=number)) for number in range(count)]

    def machine(self) -> dict[str, Any]:
        """What the figures depend on: hardware, versions, and the durability settings that the server reports."""
        with psycopg.connect(self.server.superuser_url()) as connection:
            rows = connection.execute(
                "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [["server_version", *DURABILITY]]
            )
            settings: dict[str, str] = dict(rows.fetchall())
        return {
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "postgresql": settings["server_version"],
            "filesystem": _filesystem(self.server.folder),
            "durability": {name: settings[name] for name in DURABILITY},
        }


@contextmanager
def throwaway_installation(
    members: int, *, with_wallets: bool = True, max_connections: int = 200
) -> Iterator[Installation]:
    """An installation that is removed afterwards. Without wallets the members have no wallets and no deposits.

    Settings are read from the environment only, so this changes the environment of this process. Variables that it does
    not set keep their values.
    """
    with tempfile.TemporaryDirectory(prefix="wallet-benchmark-") as folder:
        server = embedded.start(Path(folder), (f"max_connections={max_connections}",))
        try:
            os.environ.update(_environment(server))
            settings = read_settings()
            create_roles(server.superuser_url(), settings)
            installation = Installation(server, settings, _make_tenants(settings))
            _make_members(settings, members)
            if with_wallets:
                _make_wallets(installation)
            with psycopg.connect(server.superuser_url(DATABASE_NAME), autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
                connection.execute("CHECKPOINT")
            yield installation
        finally:
            server.release()


def _environment(server: embedded.EmbeddedServer) -> dict[str, str]:
    return {
        "DATABASE_URL": server.url("wallet_app", secrets.token_urlsafe(), DATABASE_NAME),
        "ADMIN_DATABASE_URL": server.url("wallet_migrator", secrets.token_urlsafe(), DATABASE_NAME),
        "BACKUP_DATABASE_URL": server.url("wallet_backup", secrets.token_urlsafe(), DATABASE_NAME),
        "RELAY_DATABASE_URL": server.url("wallet_relay", secrets.token_urlsafe(), DATABASE_NAME),
        "TENANT_SECRET": secrets.token_urlsafe(48),
        "SECRET_KEY": secrets.token_urlsafe(48),
        "SIGNING_KEYS": dump_keys(rotated(None, 1)),
        "LOG_LEVEL": "error",
        "TOKEN_SECONDS": str(TOKEN_SECONDS),
        # Rates so high that they limit nothing. Slots for requests at once are the service's default.
        "TENANT_RATE_LIMIT": "999999999/day",
        "CALLER_RATE_LIMIT": "999999999/day",
        "LOGIN_RATE_LIMIT": "999999999/day",
    }


def _make_tenants(settings: Settings) -> list[Tenant]:
    engine = admin_engine(settings.admin_database_url)
    outcomes = migrate(engine, MIGRATIONS)
    failed = [f"{outcome.schema_name}: {outcome.error}" for outcome in outcomes if outcome.has_failed]
    if failed:
        raise BenchmarkFailed("\n".join(failed))
    return [
        provision(
            engine,
            MIGRATIONS,
            slug=slug,
            name=slug,
            settings=tenant_settings,
            tenant_secret=settings.tenant_secret,
        )
        for slug, tenant_settings in TENANTS.items()
    ]


def _make_members(settings: Settings, members: int) -> None:
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO shared.users (id, email, name) SELECT lpad(to_hex(n), 32, '0')::uuid,"
            " format('member%%s@example.com', n), format('Member %%s', n) FROM generate_series(0, %s) n",
            (members - 1,),
        )
        # A session for each member, with the member's id, for the tokens that are issued without a login.
        connection.execute(
            "INSERT INTO shared.sessions (id, user_id, expires_at) SELECT id, id, now() + interval '1 day'"
            " FROM shared.users"
        )
        connection.execute(
            "INSERT INTO shared.memberships (tenant_id, user_id, tenant_role, role)"
            " SELECT t.id, u.id, t.role_name, 'member' FROM shared.tenants t, shared.users u"
        )


def _make_wallets(installation: Installation) -> None:
    for tenant in installation.tenants:
        with psycopg.connect(installation.tenant_url(tenant), autocommit=True) as connection:
            connection.execute(
                "SELECT count(*) FROM shared.memberships m, LATERAL wallet_open_v3(m.user_id, %s, NULL, NULL)",
                (tenant.settings["currency"],),
            )
            connection.execute(
                "SELECT count(*) FROM wallets w, LATERAL wallet_post_v4("
                "w.id, NULL, NULL, 'deposit', %s, 'benchmark', NULL, NULL, NULL, NULL, NULL, NULL)",
                (BALANCE_MINOR,),
            )


def _filesystem(folder: Path) -> str:
    """The type of the folder's file system: on a tmpfs an fsync costs nothing, and the rates mean little."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    found = [mount for mount in mounts if folder.is_relative_to(mount[1])]
    return max(found, key=lambda mount: len(mount[1]))[2]


def make_database(installation: Installation, name: str) -> str:
    """Create an empty database on the same server, for a baseline; returns the superuser's URL for it."""
    with psycopg.connect(installation.server.superuser_url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return installation.server.superuser_url(name)


@dataclass(frozen=True, slots=True)
class RunningService:
    """The service as `scripts.serve` runs it: gunicorn with threads."""

    port: int
    gunicorn: subprocess.Popen[bytes]

    def wait_until_ready(self) -> None:
        if not serve.wait_until_ready(self.gunicorn, HOST, self.port):
            status = self.gunicorn.poll()
            reason = "is not ready in time" if status is None else f"ended with status {status}"
            raise BenchmarkFailed(f"The service {reason}: its messages are printed above.")


@contextmanager
def _environment_with(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def running_service(workers: int, threads: int, **settings: str) -> Iterator[RunningService]:
    """Start the service with these settings, without waiting until it is ready, and stop it afterwards. Ctrl-C does not
    reach it. It logs each request, as it does by default, to a file.
    """
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryFile() as log, _environment_with({"LOG_LEVEL": "info"} | settings):
        gunicorn = serve.start_gunicorn(HOST, port, workers, threads, log)
    try:
        yield RunningService(port, gunicorn)
    finally:
        gunicorn.terminate()
        gunicorn.wait()
