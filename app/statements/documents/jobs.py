"""The verbs of a job, for the program that makes documents: claim, report, end. Each is one statement, committed when
it returns.
"""

from typing import Any, Final

from app.statements.documents.models import Job
from tenant_schemas.search_path import BindingEngine

_WAITS: Final = """
    SELECT EXISTS (SELECT FROM documents WHERE expires_at > clock_timestamp()
        AND (status = 'pending' OR status = 'running'
            AND (leased_until <= clock_timestamp() OR leased_until > clock_timestamp() + interval '3 minutes')))"""
_CLAIM: Final = "SELECT id, attempt, wallet_id, period_start, period_end FROM document_claim_v2()"
_REPORT: Final = "SELECT document_report_v1(%s, %s, %s, %s)"
_END: Final = "SELECT document_end_v1(%s, %s, %s, %s)"


class LeaseLost(Exception):
    """Another program has claimed the job, since this one did not report for two minutes."""


def is_waiting(engine: BindingEngine) -> bool:
    """Whether the tenant has a job that no program works at."""
    return bool(engine.one_statement(_WAITS, (), retry=True)[0][0])


def claim(engine: BindingEngine) -> Job | None:
    """The tenant's oldest job that no program works at, leased to this one."""
    rows = engine.one_statement(_CLAIM, ())
    return Job(*rows[0]) if rows else None


def report(engine: BindingEngine, job: Job, *, movements: int | None, rendered: int) -> None:
    """Note the progress, with the number of movements if it is known, and extend the lease. Raises LeaseLost."""
    _call(engine, _REPORT, (job.id, job.attempt, movements, rendered))


def finish(engine: BindingEngine, job: Job, content: bytes) -> None:
    """Store the document. Raises LeaseLost."""
    _call(engine, _END, (job.id, job.attempt, content, None))


def fail(engine: BindingEngine, job: Job, code: str) -> None:
    """End the job without a document. Raises LeaseLost."""
    _call(engine, _END, (job.id, job.attempt, None, code))


def give_back(engine: BindingEngine, job: Job) -> None:
    """Let another program make it from the beginning. Raises LeaseLost."""
    _call(engine, _END, (job.id, job.attempt, None, None))


def _call(engine: BindingEngine, statement: str, parameters: tuple[Any, ...]) -> None:
    if not engine.one_statement(statement, parameters)[0][0]:
        raise LeaseLost
