"""Starts the program that makes documents, one after another over all processes of this machine.

The threads of a serving process do no more than wait for it: laying out a document in the service would take the
interpreter's lock from every request. The program runs only while there is a job, for one job, so the tenants of a
process take turns. The machine's number of programs is limited by file locks, which a killed process leaves free.

A process learns of a job from its request, or from a look at it: the worker asks no tenant on its own, so thousands of
tenants cost nothing. A job that the requesting process did not live to make waits until its caller looks.
"""

import fcntl
import os
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Final, cast
from uuid import UUID

import orjson
import structlog
from flask import Flask, current_app

from app.config import ROOT, Settings
from app.db import ROLES
from app.metrics.endpoint import FOLDER_VARIABLE
from app.statements.documents.jobs import is_waiting
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.flask import connections
from tenant_schemas.registry import get_tenant_by_id
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

EXTENSION: Final = "document_worker"
MAX_SECONDS: Final = 3_600  # of one document: half a minute of processor time, at the lowest priority
LOOK_SECONDS: Final = 0.5
REST_SECONDS: Final = 5.0  # after a failure
_SHOWN_BYTES: Final = 2_000  # of the program's last words
# It yields to others before it imports anything, since that alone takes a second.
_PROGRAM: Final = "import os; os.nice({niceness}); from app.statements.documents.renderer import main; main()"
NICENESS: Final = 19  # the lowest priority


class DocumentWorker:
    """The tenants of one process with jobs to make, each once, in turns."""

    def __init__(self, settings: Settings) -> None:
        self.renderers = settings.document_renderers
        self._settings = settings
        self._changed = Condition()
        self._tenants: OrderedDict[UUID, None] = OrderedDict()

    def wake(self, tenant_id: UUID) -> None:
        """Make the tenant's jobs as soon as its turn comes."""
        with self._changed:
            self._tenants[tenant_id] = None
            self._changed.notify()

    def take(self, seconds: float) -> UUID | None:
        """The tenant whose turn it is; None if none came within `seconds`."""
        with self._changed:
            if not self._tenants:
                self._changed.wait(seconds)
            return self._tenants.popitem(last=False)[0] if self._tenants else None

    def make_next(self, tenant_id: UUID) -> None:
        """Make one waiting document of the tenant, and put the tenant at the end of the turns. Raises TenantNotFound,
        CalledProcessError, TimeoutExpired, and errors of the look-up.
        """
        with connections().shared.begin() as connection:  # The tenant may have been renamed or restored meanwhile.
            tenant = get_tenant_by_id(connection, tenant_id)
        if not is_waiting(connections().engine(tenant)):
            return
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _PROGRAM.format(niceness=NICENESS)],
            cwd=ROOT,
            # Each program would leave files in the folder of the metrics.
            env={name: value for name, value in os.environ.items() if name != FOLDER_VARIABLE},
            input=self._task(tenant),
            capture_output=True,
            check=True,
            timeout=MAX_SECONDS,
        )
        if done.stdout:
            log.info("document_made", tenant=tenant.slug, **orjson.loads(done.stdout.splitlines()[-1]))
        self.wake(tenant_id)

    def _task(self, tenant: Tenant) -> bytes:
        """The renderer's Task. Secrets go through a pipe, where no list of processes shows them."""
        own = self._settings
        return orjson.dumps(
            {
                "database_url": own.database_url,
                "tenant_secret": own.tenant_secret,
                "pool_role": ROLES.pool if own.tenant_logins == "shared" else None,
                "tenant_id": str(tenant.id),
                "parent_id": os.getpid(),
            }
        )

    def lock_path(self, slot: int) -> Path:
        """The file whose lock is the right to run one program of this installation on this machine."""
        name = blake2b(self._settings.database_url.encode(), digest_size=8, key=b"documents").hexdigest()
        return Path(tempfile.gettempdir()) / f"schema-wallet-documents-{os.getuid()}-{name}.{slot}.lock"


def init_app(app: Flask, settings: Settings) -> None:
    app.extensions[EXTENSION] = DocumentWorker(settings)


def wake_worker(tenant: Tenant) -> None:
    """Let this process's worker make the tenant's jobs."""
    cast(DocumentWorker, current_app.extensions[EXTENSION]).wake(tenant.id)


def start_document_worker(app: Flask) -> Event:
    """Make documents in daemon threads of this process, one for each program that may run on this machine. Set the
    returned event to stop them. Call this after the process was forked.
    """
    stop = Event()
    own: DocumentWorker = app.extensions[EXTENSION]
    for slot in range(own.renderers):
        Thread(target=_work, args=(app, own, slot, stop), name=f"documents-{slot}", daemon=True).start()
    return stop


def _work(app: Flask, own: DocumentWorker, slot: int, stop: Event) -> None:
    while not stop.is_set():
        tenant_id = own.take(LOOK_SECONDS)
        if tenant_id is None:
            continue
        try:
            with _machine_lock(own.lock_path(slot), stop), app.app_context():
                if not stop.is_set():
                    own.make_next(tenant_id)
        except TenantNotFound:  # It was dropped, with its jobs.
            continue
        except Exception as error:  # The job is pending, or its lease ends. Its caller's next look wakes the worker.
            said = (getattr(error, "stderr", None) or b"")[-_SHOWN_BYTES:].decode(errors="replace")
            log.exception("document_program_failed", tenant=str(tenant_id), said=said)
            stop.wait(REST_SECONDS)


@contextmanager
def _machine_lock(path: Path, stop: Event) -> Iterator[None]:
    """Hold the lock of the file, or nothing once `stop` is set. The program inherits no part of it: it ends with this
    process.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while not stop.is_set():
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                stop.wait(LOOK_SECONDS)
        yield
    finally:
        os.close(descriptor)
