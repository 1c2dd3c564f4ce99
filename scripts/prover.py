"""Prove every tenant's books, again and again: balances, hash chains, entries, holds, orders, the audit log and events.

It runs until SIGTERM or Ctrl-C, and then stops after its current step. It uses at most PROVER_BUDGET percent of one
core. It reads each tenant under the tenant's own login in short db transactions, and goes on where it last stopped,
also after a kill. A pass reads what came since the pass before; once a week it reads everything. Once a day it compares
all chains with their last signed heads in PROVER_HEADS_DIR, and signs new ones. Any number of provers may run at once.

Examples:
    python -m scripts.prover
    python -m scripts.prover --metrics-port 9103
    python -m scripts.prover --once
    python -m scripts.prover --once --full --tenant km
    python -m scripts.prover --status
    python -m scripts.prover --findings km

Prints one line of JSON for each finding and failure while it runs; --once and --status print a table.

Exit codes: 0 stopped, or with --once and --status: all proven and nothing found; 1 with --once, --status and
--findings: a finding, a failure, or a proof older than PROOF_MAX_AGE_SECONDS, or the database can't be read; 2 bad
arguments or settings.
"""

import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Final

import psycopg
import rich_click as click
import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings
from app.db import make_connections
from app.logging_setup import configure_logging
from app.prover.budget import Budget
from app.prover.loop import Prover
from app.prover.policy import faults_of
from app.prover.service import Proof, read_findings, read_proofs
from app.signing_keys import key_source
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    exit_with,
    json_option,
    settings_or_exit,
    show_json,
    show_table,
)
from scripts.support.metrics_port import metrics_port_option, serve_metrics_or_exit
from scripts.support.script import Script
from tenant_schemas.connections import Connections
from tenant_schemas.registry import get_tenant

log = structlog.get_logger(__name__)
ROUND_PAUSE_SECONDS: Final = 10.0
CONNECTIONS: Final = 4


@click.command(cls=Script, help=__doc__)
@click.option("--once", is_flag=True, help="Prove every tenant once, and end.")
@click.option("--full", "is_full", is_flag=True, help="With --once: passes that begin now read all rows.")
@click.option("--tenant", "slugs", multiple=True, help="With --once: only this tenant; may be repeated.")
@click.option("--status", "shows_status", is_flag=True, help="Show the tenants' proofs, and prove nothing.")
@click.option("--findings", "findings_of", metavar="SLUG", help="List the findings of this tenant, and prove nothing.")
@metrics_port_option
@json_option
def main(
    *,
    once: bool,
    is_full: bool,
    slugs: tuple[str, ...],
    shows_status: bool,
    findings_of: str | None,
    metrics_port: int | None,
    as_json: bool,
) -> None:
    if (is_full or slugs) and not once:
        exit_with("--full and --tenant say what --once proves: give --once too.", BAD_ARGUMENTS)
    if metrics_port and (once or shows_status or findings_of):
        exit_with("--metrics-port is for a prover that runs until it is stopped.", BAD_ARGUMENTS)
    settings = settings_or_exit()
    connections = make_connections(settings, max_connections=CONNECTIONS)
    try:
        if findings_of:
            _show_findings(connections, findings_of, as_json=as_json)
        elif shows_status:
            _show_status(connections, settings, (), as_json=as_json)
        elif once:
            _prove_once(connections, settings, slugs, is_full=is_full, as_json=as_json)
        else:
            serve_metrics_or_exit(metrics_port)
            _prove_until_stopped(connections, settings)
    finally:
        connections.close()


def _prover(connections: Connections, settings: Settings, *, every_seconds: float, is_full: bool = False) -> Prover:
    """A prover that SIGTERM and Ctrl-C stop after its current step."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return Prover(
        connections=connections,
        keys=key_source(settings.signing_keys_file, settings.signing_keys),
        budget=Budget(settings.prover_budget, stop),
        stop=stop,
        heads_dir=_heads_dir(settings),
        every=timedelta(seconds=every_seconds),
        is_full=is_full,
    )


def _heads_dir(settings: Settings) -> Path | None:
    """Exits 2 if it is no folder: a disk that is not mounted must not be taken for an empty one."""
    path = Path(settings.prover_heads_dir)
    if settings.prover_heads_dir and not path.is_dir():
        exit_with(f"PROVER_HEADS_DIR is {path}, which is no folder: create it, or mount its disk.", BAD_ARGUMENTS)
    return path if settings.prover_heads_dir else None


def _prove_until_stopped(connections: Connections, settings: Settings) -> None:
    configure_logging(settings.log_level)
    prover = _prover(connections, settings, every_seconds=settings.prover_seconds)
    while not prover.stop.is_set():
        try:
            prover.run_round()
            prover.measure()
        except (psycopg.Error, SQLAlchemyError):
            log.exception("prover_round_failed")
        prover.stop.wait(ROUND_PAUSE_SECONDS)


def _prove_once(
    connections: Connections, settings: Settings, slugs: tuple[str, ...], *, is_full: bool, as_json: bool
) -> None:
    with connections.shared.begin() as connection:
        for slug in slugs:
            get_tenant(connection, slug)
    configure_logging("critical")
    outcomes = _prover(connections, settings, every_seconds=0, is_full=is_full).run_round(slugs)
    _show_status(connections, settings, tuple(outcome.slug for outcome in outcomes), as_json=as_json)


def _show_status(connections: Connections, settings: Settings, slugs: tuple[str, ...], *, as_json: bool) -> None:
    """Exits 1 if a tenant has a fault."""
    with connections.shared.begin() as connection:
        proofs = [proof for proof in read_proofs(connection) if not slugs or proof.slug in slugs]
    faults = {proof.slug: faults_of(proof, settings.proof_max_age_seconds) for proof in proofs}
    if as_json:
        show_json(proofs)
    else:
        _show_proofs(proofs, faults)
    if any(faults.values()):
        sys.exit(FAILED)


def _show_proofs(proofs: Sequence[Proof], faults: dict[str, list[str]]) -> None:
    columns = ("tenant", "proven", "all rows proven", "findings", "faults")
    rows = [
        [proof.slug, _age(proof.proven_at), _age(proof.full_proven_at), proof.findings, "; ".join(faults[proof.slug])]
        for proof in proofs
    ]
    show_table("Proofs", columns, rows)
    print(f"{len(proofs)} tenants, {sum(map(bool, faults.values()))} with faults.")


def _age(moment: datetime | None) -> str:
    if moment is None:
        return "never"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return f"{seconds:.0f} s ago"


def _show_findings(connections: Connections, slug: str, *, as_json: bool) -> None:
    with connections.shared.begin() as connection:
        tenant = get_tenant(connection, slug)
    findings = list(read_findings(connections.engine(tenant)))
    if as_json:
        show_json(findings)
    elif findings:
        rows = [[each.wallet_id or "-", each.seq or "-", each.finding, each.found_at] for each in findings]
        show_table("Findings", ("wallet", "seq", "finding", "found"), rows)
    if findings:
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
