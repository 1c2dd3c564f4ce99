"""Measure the service on a throw-away server of its own, which is made for the run and leaves nothing behind.

Numbers compare only with others of the same run: run it on a quiet machine, and compare ratios.
"""

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scripts.benchmarks import binding, fleet, neighbours, wallet_import
from scripts.benchmarks import ledger as history
from scripts.benchmarks import posting as payments
from scripts.benchmarks.measurement import BenchmarkFailed, Figures
from scripts.support.console import FAILED, exit_with, json_option, show_json, show_table


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
        report = _with_progress(payments.run, plan)
    except BenchmarkFailed as error:
        exit_with(str(error), FAILED)
    if as_json:
        show_json(_as_json(plan, report))
    else:
        _show(plan, report)
    if not all(books.agree for books in report.books):
        sys.exit(FAILED)


@main.command("import")
@click.option("--users", type=click.IntRange(1), default=100_000, show_default=True, help="Users of the old system.")
@json_option
def import_(as_json: bool, **options: Any) -> None:
    """The move of a whole old system by `flask wallets import`, and by plain SQL without any rule.

    Each user has three orders and a deposit in the files. Exits 1 unless afterwards each balance stands once, though
    the import was run twice, and the audit finds nothing.
    """
    plan = wallet_import.Plan(**options)
    try:
        report = _with_progress(wallet_import.run, plan)
    except BenchmarkFailed as error:
        exit_with(str(error), FAILED)
    if as_json:
        show_json({"benchmark": "import", "options": asdict(plan), **asdict(report)})
    else:
        _show_import(plan, report)
    if not report.is_sound:
        sys.exit(FAILED)


def _show_import(plan: wallet_import.Plan, report: wallet_import.Report) -> None:
    ways = {
        "plain SQL, no rules": report.floor_seconds,
        "flask wallets import": report.import_seconds,
        "the same again": report.again_seconds,
    }
    rows = [
        (title, f"{seconds:.1f}", f"{plan.users / seconds:,.0f}", f"{seconds / report.floor_seconds:.1f} ×")
        for title, seconds in ways.items()
    ]
    show_table(
        f"Import: {plan.users} users, {report.rows} rows", ("way", "seconds", "users per second", "of the floor"), rows
    )
    _show_machine(report.machine)
    print(f"{'sound' if report.is_sound else 'NOT SOUND'}: {report.posted} balances stand, after two imports")
    print(report.audit)


@main.command()
@click.option(
    "--transactions", type=click.IntRange(100), default=1_000_000, show_default=True, help="In the wallet that is read."
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Slices of each way.")
@click.option("--seconds", type=click.FloatRange(0.1), default=2.0, show_default=True, help="The length of a slice.")
@json_option
def ledger(as_json: bool, **options: Any) -> None:
    """One long history read, and many movements posted: by the service, and by plain SQL.

    Statements, the balance at a moment, the first and the thousandth page; single posts and bulks of 1,000. All in
    turns, by one client, without HTTP. Exits 1 unless afterwards the ledger has grown by exactly what was posted, and
    the audit finds nothing.
    """
    plan = history.Plan(**options)
    try:
        report = _with_progress(history.run, plan)
    except BenchmarkFailed as error:
        exit_with(str(error), FAILED)
    if as_json:
        show_json({"benchmark": "ledger", "options": options, **history.as_json(report)})
    else:
        _show_ledger(plan, report)
    if not all(books.agree for books in report.books):
        sys.exit(FAILED)


@main.command("neighbours")
@click.option("--seconds", type=click.FloatRange(0.1), default=4.0, show_default=True, help="The length of a slice.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Slices of each way.")
@click.option("--clients", type=click.IntRange(1), default=2, show_default=True, help="Payers of the quiet tenant.")
@click.option("--noise", type=click.IntRange(1), default=16, show_default=True, help="Clients of the noisy tenant.")
@click.option("--cap", type=click.IntRange(1), default=2, show_default=True, help="Its requests at once in a process.")
@click.option("--wallets", type=click.IntRange(1), default=1000, show_default=True, help="Wallets in each tenant.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="gunicorn's worker processes.")
@click.option("--threads", type=click.IntRange(1), default=4, show_default=True, help="Threads of each worker.")
@json_option
def neighbours_(as_json: bool, **options: Any) -> None:
    """One tenant's payments through HTTP, alone and beside another tenant that saturates the service with slow work.

    The noisy tenant's payments hang on a locked row, half a second at a time. With the cap on its requests at once
    most of them are refused, and the other tenant's p99 should stay within twice its quiet p99; without, it waits.
    """
    plan = neighbours.Plan(**options)
    try:
        report = _with_progress(neighbours.run, plan)
    except BenchmarkFailed as error:
        exit_with(str(error), FAILED)
    if as_json:
        show_json({"benchmark": "neighbours", "options": asdict(plan), **neighbours.as_json(report)})
        return
    show_table(f"Neighbours: {plan.clients} clients beside {plan.noise}", neighbours.COLUMNS, neighbours.rows(report))
    _show_machine(report.machine)
    print(f"gunicorn {plan.workers} × {plan.threads} threads")


@main.command("binding")
@click.option("--seconds", type=click.FloatRange(0.1), default=2.0, show_default=True, help="The length of a slice.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Slices of each way.")
@click.option("--tenants", type=click.IntRange(3), default=500, show_default=True, help="Of the longer rotations.")
@json_option
def binding_(as_json: bool, **options: Any) -> None:
    """A one-row read through Flask bound to tenants in turn, beside the same read with no tenancy at all.

    With a login for each tenant and with one pool for all, and with a SET for the session beside; over two tenants
    and over TENANTS. The binding is in the BEGIN message and should cost no round trip.
    """
    plan = binding.Plan(**options)
    try:
        report = _with_progress(binding.run, plan)
    except BenchmarkFailed as error:
        exit_with(str(error), FAILED)
    if as_json:
        show_json({"benchmark": "binding", "options": asdict(plan), **binding.as_json(report)})
        return
    rows = [_row(each, report.yardstick) for each in report.figures]
    columns = ("way", "per second", "slowest–fastest", "of no tenancy", "p50 ms", "p99 ms")
    show_table(f"Binding: {plan.rounds} slices of {plan.seconds:g} s each", columns, rows)
    _show_machine(report.machine)


@main.command("fleet")
@click.option("--tenants", type=click.IntRange(5), default=1000, show_default=True, help="In the fleet.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Of each work; medians count.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="The migrator's.")
@json_option
def fleet_(as_json: bool, **options: Any) -> None:
    """What is done to a whole fleet: provision, migrate one column, migrate nothing, look at the status, back up one.

    Each beside psql with a file of the same statements, a db transaction for each tenant, on the same server. And how
    much memory it takes to visit all tenants once, in a service process and in PostgreSQL's. Targets are for 1,000
    tenants on a quiet machine of two cores; none of them fails the run.
    """
    plan = fleet.Plan(**options)
    try:
        report = _with_progress(fleet.run, plan)
    except BenchmarkFailed as error:
        exit_with(str(error), FAILED)
    if as_json:
        show_json({"benchmark": "fleet", "options": asdict(plan), **fleet.as_json(report)})
        return
    show_table(f"Fleet: {plan.tenants} tenants, {plan.rounds} rounds", fleet.COLUMNS, fleet.rows(report))
    show_table("Each visited once", fleet.FOOTPRINT_COLUMNS, fleet.footprint_rows(report))
    _show_machine(report.machine)


def _show_ledger(plan: history.Plan, report: history.Report) -> None:
    title = f"Ledger: a wallet with {plan.transactions:,} transactions, {plan.rounds} slices of {plan.seconds:g} s each"
    show_table(title, history.COLUMNS, history.rows(report))
    print("Per second: movements where a call is about many, else calls.")
    _show_machine(report.machine)
    _show_books(report.books)


Plan = TypeVar("Plan", payments.Plan, wallet_import.Plan, history.Plan, neighbours.Plan, binding.Plan, fleet.Plan)
Made = TypeVar("Made")


def _with_progress(run: Callable[[Plan, payments.Announce], Made], plan: Plan) -> Made:
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

        return run(plan, announce)


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
    _show_machine(report.machine)
    print(f"gunicorn {plan.workers} × {plan.threads} threads")
    _show_books(report.books)


def _show_books(all_books: Sequence[payments.Books]) -> None:
    for books in all_books:
        verdict = "sound" if books.agree else "NOT SOUND"
        print(f"{books.tenant}: {verdict}: {books.counted} posts counted, {books.posted} in the ledger")
        for finding in books.findings:
            print(f"  wallet {finding.wallet_id} seq {finding.seq}: {finding.text}")


def _show_machine(machine: dict[str, Any]) -> None:
    durability = ", ".join(f"{name} {value}" for name, value in machine["durability"].items())
    print(
        f"{machine['cores']} cores ({machine['architecture']}), {machine['memory_gib']} GiB, "
        f"Python {machine['python']}, PostgreSQL {machine['postgresql']} on {machine['filesystem']}\n{durability}"
    )


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
