"""Measure the service on a throw-away server of its own, which is made for the run and leaves nothing behind.

Numbers compare only with others of the same run: run it on a quiet machine, and compare ratios.
"""

import signal
import sys
from dataclasses import asdict
from typing import Any

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scripts.benchmarks import posting as payments
from scripts.benchmarks.slices import BenchmarkFailed, Figures
from scripts.console import FAILED, json_option, show_json, show_table, stop


@click.group(help=__doc__)
def main() -> None:
    # As with Ctrl-C, what was started is stopped: servers and client processes do not outlive this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@main.command()
@click.option("--seconds", type=click.FloatRange(0.1), default=3.0, show_default=True, help="The length of a slice.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Slices of each way.")
@click.option("--clients", type=click.IntRange(1), default=8, show_default=True, help="Payers at once, in every way.")
@click.option("--wallets", type=click.IntRange(1), default=1000, show_default=True, help="Wallets in each tenant.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="gunicorn's worker processes.")
@click.option("--threads", type=click.IntRange(1), default=4, show_default=True, help="Threads of each worker.")
@json_option
def posting(as_json: bool, **options: Any) -> None:
    """Payments per second: through HTTP, through the service layer, and by pgbench with the same statement.

    The three, and pgbench's own TPC-B-like script for reference, run in turns: a warm-up, then ROUNDS slices of
    SECONDS each. The server is an embedded one with PostgreSQL's default durability: every payment waits for its
    fsync. Afterwards the ledger is audited, and must hold exactly the payments that the clients counted. Exits 1 if
    it does not, or if any payment is refused.
    """
    plan = payments.Plan(**options)
    try:
        report = _with_progress(plan)
    except BenchmarkFailed as error:
        stop(str(error), FAILED)
    if as_json:
        show_json(_as_json(plan, report))
    else:
        _show(plan, report)
    if not all(books.agree for books in report.books):
        sys.exit(FAILED)


def _with_progress(plan: payments.Plan) -> payments.Report:
    """A bar on standard error, where that is a terminal. Its unit is the second that a step is expected to take."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("ETA"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=plan.expected_seconds)
        begun_seconds = 0.0

        def announce(what: str, expected_seconds: float) -> None:
            nonlocal begun_seconds
            progress.update(task, description=what, completed=begun_seconds)
            begun_seconds += expected_seconds

        return payments.run(plan, announce)


def _as_json(plan: payments.Plan, report: payments.Report) -> dict[str, Any]:
    return {
        "benchmark": "posting",
        "options": asdict(plan),
        "machine": report.machine,
        "ways": {each.name: _way_as_json(each, report.yardstick) for each in report.figures},
        "books": {books.tenant: {**asdict(books), "agree": books.agree} for books in report.books},
    }


def _way_as_json(figures: Figures, yardstick: float) -> dict[str, Any]:
    return {
        "title": figures.title,
        "median_per_second": round(figures.median_rate, 1),
        "slices_per_second": [round(rate, 1) for rate in figures.rates],
        "ratio_to_pgbench": round(figures.median_rate / yardstick, 3),
        "p50_ms": round(figures.p50_ms, 3),
        "p99_ms": round(figures.p99_ms, 3),
    }


def _show(plan: payments.Plan, report: payments.Report) -> None:
    rows = [_row(each, report.yardstick) for each in report.figures]
    title = f"Posting: {plan.clients} clients, {plan.rounds} slices of {plan.seconds:g} s each, {plan.wallets} wallets"
    show_table(title, ("way", "per second", "slowest–fastest", "of pgbench", "p50 ms", "p99 ms"), rows)
    machine = report.machine
    durability = ", ".join(f"{name} {value}" for name, value in machine["durability"].items())
    print(
        f"{machine['cores']} cores ({machine['architecture']}), {machine['memory_gib']} GiB, "
        f"Python {machine['python']}, PostgreSQL {machine['postgresql']} on {machine['filesystem']}; "
        f"gunicorn {plan.workers} × {plan.threads} threads\n{durability}"
    )
    for books in report.books:
        verdict = "sound" if books.agree else "NOT SOUND"
        print(f"{books.tenant}: {verdict}: {books.counted} payments counted, {books.posted} in the ledger")
        for finding in books.findings:
            print(f"  wallet {finding.wallet_id} seq {finding.seq}: {finding.text}")


def _row(figures: Figures, yardstick: float) -> tuple[str, ...]:
    return (
        figures.title,
        f"{figures.median_rate:,.0f}",
        f"{min(figures.rates):,.0f}–{max(figures.rates):,.0f}",
        f"{figures.median_rate / yardstick:.0%}",
        f"{figures.p50_ms:.2f}",
        f"{figures.p99_ms:.2f}",
    )


if __name__ == "__main__":
    main()
