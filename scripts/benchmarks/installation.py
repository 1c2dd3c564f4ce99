"""A throw-away installation on an embedded server with PostgreSQL's default durability, made as a real one is made.

Only its members are made by shortcuts: users, memberships, wallets and one large deposit each, a statement for all.
"""

import os
import platform
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
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
from scripts.benchmarks.slices import BenchmarkFailed
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
    """A server with the service's database and two tenants, each with a wallet for every member."""

    server: embedded.EmbeddedServer
    settings: Settings
    tenants: Sequence[Tenant]

    @property
    def currencies(self) -> dict[str, str]:
        return {tenant.slug: tenant.settings["currency"] for tenant in self.tenants}

    def tenant_url(self, tenant: Tenant) -> str:
        """The tenant's own login."""
        password = tenant_password(self.settings.tenant_secret, tenant.id, tenant.login_epoch)
        return self.server.url(tenant.role_name, password, DATABASE_NAME)

    def member_tokens(self, count: int) -> list[str]:
        """An access token for each of the first members, made without a log-in."""
        mint = TokenMint(key_source("", self.settings.signing_keys), self.settings.token_seconds)
        return [mint.issue(UUID(int=number), None, UUID(int=number)) for number in range(count)]

    def machine(self) -> dict[str, Any]:
        """What the numbers depend on. Durability is asked of the server, not assumed."""
        with psycopg.connect(self.server.superuser_url()) as connection:
            asked = connection.execute(
                "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [["server_version", *DURABILITY]]
            )
            told: dict[str, str] = dict(asked.fetchall())
        return {
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "postgresql": told["server_version"],
            "filesystem": _filesystem(self.server.folder),
            "durability": {name: told[name] for name in DURABILITY},
        }


@contextmanager
def throw_away(members: int, *, with_wallets: bool = True, max_connections: int = 200) -> Iterator[Installation]:
    """Nothing of it is left afterwards. Without wallets the members have none yet, and no deposit.

    Settings have one door, the environment, so this process's is changed; a setting that is not about the database
    counts as it was given.
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
        "TENANT_SECRET": secrets.token_urlsafe(48),
        "SECRET_KEY": secrets.token_urlsafe(48),
        "SIGNING_KEYS": dump_keys(rotated(None, 1)),
        "LOG_LEVEL": "error",
        "TOKEN_SECONDS": str(TOKEN_SECONDS),
        # What is measured is the work and not the limits; whoever measures those sets a tenant's own.
        "TENANT_RATE_LIMIT": "999999999/day",
        "TENANT_CONCURRENCY": "1000000",
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
            settings=told,
            tenant_secret=settings.tenant_secret,
        )
        for slug, told in TENANTS.items()
    ]


def _make_members(settings: Settings, members: int) -> None:
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO shared.users (id, email, name) SELECT lpad(to_hex(n), 32, '0')::uuid,"
            " format('member%%s@example.com', n), format('Member %%s', n) FROM generate_series(0, %s) n",
            (members - 1,),
        )
        # A session each, with the member's own id, for tokens that are made without a log-in.
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
                "SELECT count(*) FROM shared.memberships m, LATERAL wallet_open_v2(m.user_id, %s, NULL, NULL)",
                (tenant.settings["currency"],),
            )
            connection.execute(
                "SELECT count(*) FROM wallets w, LATERAL wallet_post_v2("
                "w.id, 'deposit', %s, 'benchmark', NULL, NULL, NULL, NULL, NULL, NULL)",
                (BALANCE_MINOR,),
            )


def _filesystem(folder: Path) -> str:
    """The kind of file system below `folder`: on a tmpfs an fsync costs nothing, and the rates mean little."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    found = [mount for mount in mounts if folder.is_relative_to(mount[1])]
    return max(found, key=lambda mount: len(mount[1]))[2]


def make_database(installation: Installation, name: str) -> str:
    """A database beside the service's, for work that is not ours; returns the superuser's URL for it."""
    with psycopg.connect(installation.server.superuser_url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return installation.server.superuser_url(name)


@dataclass(frozen=True, slots=True)
class Api:
    """The API as operators serve it: gunicorn with threads, started by the functions of scripts.serve."""

    port: int
    gunicorn: subprocess.Popen[bytes]

    def wait_until_ready(self) -> None:
        if not serve._wait_until_ready(self.gunicorn, HOST, self.port):
            status = self.gunicorn.poll()
            why = "in time" if status is None else f"and ended with status {status}"
            raise BenchmarkFailed(f"The service did not become ready {why}; what it said stands above.")


@contextmanager
def served(workers: int, threads: int) -> Iterator[Api]:
    """Start the service; it gets ready while the caller goes on. Ctrl-C does not reach it: we stop it ourselves."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    gunicorn = serve._start_gunicorn(HOST, port, workers, threads)
    try:
        yield Api(port, gunicorn)
    finally:
        gunicorn.terminate()
        gunicorn.wait()
