"""The program that makes one document of one tenant, in a process of its own.

`worker.py` starts it at low priority, with the database's URL and the tenant in its standard input. It claims a job,
reads the movements in one snapshot, lays them out, stores the document and ends. Its last line of output tells what it
did. A SIGTERM gives the job back; the lease of a killed program ends by itself.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from app.statements import pdf
from app.statements.documents import jobs
from app.statements.documents.models import Job
from app.statements.documents.progress import reported
from app.statements.errors import StatementBroken
from app.statements.service import read_statement
from app.wallets.models import Wallet
from tenant_schemas.connections import Connections, Limits
from tenant_schemas.context import bound
from tenant_schemas.registry import get_tenant_by_id
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.tenant import Tenant

MAX_MEMORY_BYTES: Final = 2 << 30
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


@dataclass(frozen=True, slots=True)
class Task:
    """What the program is told: how to reach the database, whose job to make, and which process started it."""

    database_url: str
    tenant_secret: str
    pool_role: str | None
    tenant_id: str
    parent_id: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: done, given_back, lost, or the code of its failure."""

    document_id: str
    outcome: str


def main() -> None:
    """Make one document of the task's tenant, and print the Outcome as JSON; nothing if no job waits."""
    task = Task(**json.load(sys.stdin))
    _stay_in_bounds(task.parent_id)
    limits = Limits(max_connections=3, max_tenant_connections=2)  # One to read, and one to report meanwhile.
    connections = Connections(task.database_url, task.tenant_secret, limits, pool_role=task.pool_role)
    with connections.shared.begin() as connection:
        tenant = get_tenant_by_id(connection, UUID(task.tenant_id))
    outcome = render_next(connections.engine(tenant), tenant)
    if outcome:
        sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
    connections.close()


def _stay_in_bounds(parent_id: int) -> None:
    """Limit this process's memory, and end it with the process that started it."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_id:  # It ended while this process was starting.
        sys.exit(128 + signal.SIGTERM)


def render_next(engine: BindingEngine, tenant: Tenant) -> Outcome | None:
    """Claim the tenant's oldest waiting job and make its document. None if no job waits."""
    job = jobs.claim(engine)
    if job is None:
        return None
    try:
        with bound(tenant):
            return Outcome(str(job.id), _render(engine, tenant, job))
    except jobs.LeaseLost:
        return Outcome(str(job.id), "lost")
    except BaseException:  # Also SystemExit: the service is being stopped.
        jobs.give_back(engine, job)
        raise


def _render(engine: BindingEngine, tenant: Tenant, job: Job) -> str:
    """Returns "done", or the code of the failure."""
    with engine.connect() as connection:
        currency = connection.scalar(sa.select(Wallet.currency).where(Wallet.id == job.wallet_id))
    if currency is None:
        return _fail(engine, job, "wallet_not_found")
    with reported(engine, job) as progress:
        try:
            statement, lines = read_statement(
                engine, job.wallet_id, currency, job.start, job.end, limit=pdf.MAX_MOVEMENTS
            )
        except StatementBroken:
            return _fail(engine, job, "statement_broken")
        if lines is None:
            return _fail(engine, job, "statement_too_long")
        document = pdf.statement_document(tenant, statement, progress.counted(lines))
    jobs.report(engine, job, movements=len(lines), rendered=len(lines))
    jobs.finish(engine, job, document)
    return "done"


def _fail(engine: BindingEngine, job: Job, code: str) -> str:
    jobs.fail(engine, job, code)
    return code
