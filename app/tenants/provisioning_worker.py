"""Creates the tenants that were requested over HTTP, one at a time over all processes, with the function of
`scripts.provision_tenant`.

One db transaction takes the oldest request, creates the tenant, writes the first entry of its audit log and marks the
request as done. If the process is killed, nothing is half done and the request is still pending. The worker uses one
connection of the migrator, outside the service's pools.
"""

from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any, Final, cast
from uuid import UUID

import psycopg
import structlog
from flask import Flask, current_app
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from app.audit.service import entry_json
from app.auth.actors import Actor, ActorKind
from app.config import Settings
from app.db import admin_engine
from app.tenancy import MIGRATIONS, RESERVED_SLUGS
from tenant_schemas.errors import TenancyError
from tenant_schemas.flask import connections
from tenant_schemas.lifecycle.provision import new_tenant, provision_in
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.roles import become_owner, stop_being_owner
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

EXTENSION = "provisioner"
LOOK_SECONDS: Final = 5.0  # the longest wait until a request left by another process is found
_LOCK_NOT_AVAILABLE: Final = "55P03"

# The oldest request only: skipping a locked one would let two processes create tenants at once.
_CLAIM: Final = """
    SELECT id, slug, name, settings, requested_by, request_id, address FROM shared.provisionings
    WHERE status = 'pending' AND id = (
        SELECT id FROM shared.provisionings WHERE status = 'pending' ORDER BY requested_at, id LIMIT 1)
    FOR UPDATE SKIP LOCKED"""
_DONE: Final = "UPDATE shared.provisionings SET status = 'done', finished_at = clock_timestamp() WHERE id = %s"
_FAILED: Final = """
    UPDATE shared.provisionings SET status = 'failed', error = %s, finished_at = clock_timestamp()
    WHERE id = %s AND status = 'pending'"""
# Alembic's globals allow only one migration at a time in a process.
_migrating = Lock()


@dataclass(frozen=True, slots=True)
class _Request:
    id: UUID
    slug: str
    name: str
    settings: dict[str, Any]
    requested_by: UUID
    request_id: str | None
    address: str | None


class Provisioner:
    """The worker of one process. Without ADMIN_DATABASE_URL it creates nothing and `is_able` is false."""

    def __init__(self, admin_url: str, tenant_secret: str) -> None:
        self._engine: Engine | None = admin_engine(admin_url) if admin_url else None
        self._tenant_secret = tenant_secret
        self.asked = Event()

    @property
    def is_able(self) -> bool:
        return self._engine is not None

    def wake(self) -> None:
        """Let this process's worker look for requests at once."""
        self.asked.set()

    def work_off(self) -> None:
        """Create requested tenants until none is pending or another process is working. Raises errors of the look-up
        itself.
        """
        query = "SELECT EXISTS (SELECT FROM shared.provisionings WHERE status = 'pending')"
        if self._engine and connections().shared.one_statement(query, (), retry=True)[0][0]:
            while self._make_next(self._engine):
                pass

    def _make_next(self, engine: Engine) -> bool:
        request = None
        with _migrating:
            try:
                with engine.begin() as connection:
                    request = _claim(connection)
                    if request is None:
                        return False
                    self._make(connection, request)
            except Exception as error:
                if request is None:
                    raise
                _fail(engine, request, error)
        return True

    def _make(self, connection: Connection, request: _Request) -> None:
        tenant = new_tenant(
            MIGRATIONS,
            slug=request.slug,
            name=request.name,
            settings=request.settings,
            reserved_slugs=RESERVED_SLUGS,
        )
        provision_in(connection, MIGRATIONS, tenant, self._tenant_secret)
        # The current role is still the owner, and the path is the new tenant's schema.
        connection.exec_driver_sql("SELECT audit_note_v2(%s::jsonb)", (_first_entry(tenant, request),))
        connection.exec_driver_sql(_DONE, (request.id,))


def _claim(connection: Connection) -> _Request | None:
    set_timeouts(connection)
    become_owner(connection, MIGRATIONS.roles)
    row = connection.exec_driver_sql(_CLAIM).one_or_none()
    stop_being_owner(connection)
    return _Request(*row) if row else None


def _first_entry(tenant: Tenant, request: _Request) -> str:
    actor = Actor(ActorKind.OPERATOR, request.requested_by, request.address, request.request_id)
    after = {"name": tenant.name, "status": tenant.status, "settings": dict(tenant.settings)}
    return entry_json(actor, action="tenant.provision", subject=tenant.slug, after=after)


def _fail(engine: Engine, request: _Request, error: Exception) -> None:
    """Mark the request as failed; nothing of the tenant is left. If that fails too, the request stays pending."""
    original = error.orig if isinstance(error, DBAPIError) else error
    # Not SQLAlchemy's message: it contains the statement, possibly with the verifier of a password.
    reason = f"{type(error).__name__}: {original}"
    log.error("provisioning_failed", provisioning=str(request.id), tenant=request.slug, error=reason)
    with engine.begin() as connection:
        set_timeouts(connection)
        become_owner(connection, MIGRATIONS.roles)
        connection.exec_driver_sql(_FAILED, (_in_our_words(error, original), request.id))


def _in_our_words(error: Exception, original: BaseException | None) -> str:
    if isinstance(error, TenancyError):
        return str(error)
    if isinstance(original, psycopg.Error) and original.sqlstate == _LOCK_NOT_AVAILABLE:
        return "Another process was changing tenants, perhaps a migration. Request the tenant again when it has ended."
    return "The tenant could not be created. The service's log has the reason under this id."


def init_app(app: Flask, settings: Settings) -> None:
    app.extensions[EXTENSION] = Provisioner(settings.admin_database_url, settings.tenant_secret)


def provisioner() -> Provisioner:
    """The provisioner of the current application."""
    return cast(Provisioner, current_app.extensions[EXTENSION])


def start_provisioner(app: Flask, seconds: float = LOOK_SECONDS) -> Event:
    """Create requested tenants in a daemon thread: at once after a request to this process, and every `seconds`. Set
    the returned event to stop it; the thread ends at its next round. Call this after the process was forked.
    """
    stop = Event()
    own: Provisioner = app.extensions[EXTENSION]
    if own.is_able:
        Thread(target=_look_every, args=(app, own, seconds, stop), name="provisioner", daemon=True).start()
    return stop


def _look_every(app: Flask, own: Provisioner, seconds: float, stop: Event) -> None:
    while not stop.is_set():
        own.asked.clear()
        try:
            with app.app_context():
                own.work_off()
        except Exception:  # The requests stay pending, and the next round tries again.
            log.exception("provisioner_failed")
        own.asked.wait(seconds)
