"""Measure the service on a throw-away server, which is started for the run and removed afterwards.

Figures compare only with figures of the same run: use a quiet machine, and compare ratios. Each benchmark measures
several ways of doing the same work, in short slices that take turns, and prints the median of the slices.

Example:
    python -m scripts.benchmark posting --rounds 3

Exit codes: 0 the figures are printed; 1 a call was refused or failed, or the ledger is wrong afterwards; 2 bad
arguments.
"""

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scripts.benchmarks import binding, brokers, events, fleet, ledger, neighbours, posting, wallet_import
from scripts.benchmarks.measurement import BenchmarkFailed, Figures
from scripts.serve import THREADS
from scripts.support.console import FAILED, exit_with, json_option, show_json, show_table

Command = TypeVar("Command", bound=Callable[..., Any])
Plan = TypeVar(
    "Plan",
    posting.Plan,
    wallet_import.Plan,
    ledger.Plan,
    neighbours.Plan,
    binding.Plan,
    fleet.Plan,
    brokers.Plan,
    events.Plan,
)
Report = TypeVar("Report")


def _number_option(name: str, default: int, text: str, least: int = 1) -> Callable[[Command], Command]:
    return click.option(name, type=click.IntRange(least), default=default, show_default=True, help=text)


def _seconds_option(default: float) -> Callable[[Command], Command]:
    text = "Length of a slice, in seconds."
    return click.option("--seconds", type=click.FloatRange(0.1), default=default, show_default=True, help=text)


@click.group(help=__doc__)
def main() -> None:
    # SIGTERM ends servers and client processes too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@main.command("posting")
@_seconds_option(3.0)
@_number_option("--rounds", 5, "Slices of each way.")
@_number_option("--clients", 8, "Clients that pay at once.")
@_number_option("--wallets", 1000, "Wallets in each tenant.")
@_number_option("--workers", 2, "gunicorn's worker processes.")
@_number_option("--threads", THREADS, "Threads of each worker.")
@json_option
def posting_(as_json: bool, **options: Any) -> None:
    """Payments per second: through HTTP, with and without group posting, and by pgbench with the service's statements.

    pgbench's own script, which is like TPC-B, is the yardstick. wrk pays too if it is installed. Each way
    has a warm-up and ROUNDS slices of SECONDS.
    The embedded server has PostgreSQL's default durability: every payment waits for its fsync.

    Example:
        python -m scripts.benchmark posting --clients 8

    Exit codes: 0 the ledger contains exactly the payments that the clients counted, and its audit has no findings; 1
    otherwise, or if a payment was refused; 2 bad arguments.
    """
    plan = posting.Plan(**options)
    report = _run(posting.run, plan)
    if as_json:
        show_json({"benchmark": "posting", "options": asdict(plan), **posting.as_json(report)})
    else:
        _show_posting(plan, report)
    if not all(books.agree for books in report.books):
        sys.exit(FAILED)


@main.command("import")
@_number_option("--users", 100_000, "Users in the imported files.")
@json_option
def import_(as_json: bool, **options: Any) -> None:
    """Users per second that `flask wallets import` imports, and the same files by plain SQL without constraints.

    The files have three orders and a deposit for each user. The import runs twice: the second run must post nothing.

    Example:
        python -m scripts.benchmark import --users 10000

    Exit codes: 0 each balance was posted once, and the audit has no findings; 1 otherwise; 2 bad arguments.
    """
    plan = wallet_import.Plan(**options)
    report = _run(wallet_import.run, plan)
    if as_json:
        show_json({"benchmark": "import", "options": asdict(plan), **wallet_import.as_json(report)})
    else:
        _show_import(plan, report)
    if not report.is_sound:
        sys.exit(FAILED)


def _show_import(plan: wallet_import.Plan, report: wallet_import.Report) -> None:
    ways = {
        "plain SQL, no constraints": report.baseline_seconds,
        "flask wallets import": report.import_seconds,
        "flask wallets import, again": report.again_seconds,
    }
    rows = [
        (title, f"{seconds:.1f}", f"{plan.users / seconds:,.0f}", f"{seconds / report.baseline_seconds:.1f} ×")
        for title, seconds in ways.items()
    ]
    show_table(
        f"Import: {plan.users} users, {report.rows} rows",
        ("way", "seconds", "users per second", "time to plain SQL"),
        rows,
    )
    _show_machine(report.machine)
    print(f"{'sound' if report.is_sound else 'NOT SOUND'}: {report.posted} balances posted by two imports")
    print(report.audit)


@main.command("ledger")
@_number_option("--transactions", 1_000_000, "Transactions of the wallet that is read.", least=100)
@_number_option("--rounds", 3, "Slices of each way.")
@_seconds_option(2.0)
@json_option
def ledger_(as_json: bool, **options: Any) -> None:
    """Reads of a wallet with many transactions, and deposits, through the service layer and in plain SQL.

    Account statements, the balance at a moment, the first and the thousandth page; single deposits and bulks of 1,000.
    One client does all of it in turns, without HTTP.

    Example:
        python -m scripts.benchmark ledger --transactions 100000

    Exit codes: 0 the ledger has grown by exactly the posted deposits, and its audit has no findings; 1 otherwise; 2 bad
    arguments.
    """
    plan = ledger.Plan(**options)
    report = _run(ledger.run, plan)
    if as_json:
        show_json({"benchmark": "ledger", "options": options, **ledger.as_json(report)})
    else:
        _show_ledger(plan, report)
    if not all(books.agree for books in report.books):
        sys.exit(FAILED)


@main.command("neighbours")
@_seconds_option(4.0)
@_number_option("--rounds", 5, "Slices of each way.")
@_number_option("--clients", 2, "Clients that pay.")
@_number_option("--noise", 16, "Clients that hang or loop.")
@_number_option("--log-ins", 70, "Clients that log in.")
@_number_option("--statements", 2, "Clients that read statements as PDF.")
@_number_option("--wallets", 1000, "Wallets in each tenant.", least=2)
@_number_option("--workers", 2, "gunicorn's worker processes.")
@_number_option("--threads", THREADS, "Threads of each worker.")
@json_option
def neighbours_(as_json: bool, **options: Any) -> None:
    """Latency of some members' payments through HTTP, alone and beside what other callers do.

    Another tenant's requests wait for a locked row, half a second at a time; a stranger logs in; a member of the same
    tenant lists transactions in a loop; a member of another tenant reads statements as PDF. No payment should be
    refused, and while cores are free its p95 should be at most three times the median alone.

    Example:
        python -m scripts.benchmark neighbours --rounds 3

    Exit codes: 0 the figures are printed; 1 a call failed; 2 bad arguments.
    """
    plan = neighbours.Plan(**options)
    report = _run(neighbours.run, plan)
    if as_json:
        show_json({"benchmark": "neighbours", "options": asdict(plan), **neighbours.as_json(report)})
        return
    show_table(
        f"Neighbours: {plan.clients} clients, {plan.rounds} slices of {plan.seconds:g} s each",
        neighbours.COLUMNS,
        neighbours.rows(report),
    )
    _show_machine(report.machine)
    print(f"gunicorn {plan.workers} × {plan.threads} threads")


@main.command("binding")
@_seconds_option(2.0)
@_number_option("--rounds", 5, "Slices of each way.")
@_number_option("--tenants", 500, "Tenants in the long rotations.", least=3)
@json_option
def binding_(as_json: bool, **options: Any) -> None:
    """One-row reads through Flask, bound to tenants in turn, compared with the same read without tenants.

    Three ways of binding, each in rotation over two tenants and over TENANTS: a login for each tenant, one pool for all
    tenants, and a SET search_path for the session. The first two bind without a round trip. With a login for each
    tenant a GET sends the SELECT alone, and a POST sends BEGIN and COMMIT too.

    Example:
        python -m scripts.benchmark binding --tenants 100

    Exit codes: 0 the figures are printed; 1 a call failed; 2 bad arguments.
    """
    plan = binding.Plan(**options)
    report = _run(binding.run, plan)
    if as_json:
        show_json({"benchmark": "binding", "options": asdict(plan), **binding.as_json(report)})
        return
    rows = [(*_row(each, report.baseline_rate), f"{report.cpu_us[each.name]:.0f}") for each in report.figures]
    columns = ("way", "per second", "slowest–fastest", "of no tenants", "p50 ms", "p99 ms", "client CPU µs")
    show_table(f"Binding: {plan.rounds} slices of {plan.seconds:g} s each", columns, rows)
    _show_machine(report.machine)


@main.command("fleet")
@_number_option("--tenants", 1000, "Tenants in the fleet.", least=5)
@_number_option("--rounds", 5, "Measurements of each kind of work; their median counts.")
@_number_option("--jobs", 2, "Tenants that the migrator migrates at once.")
@json_option
def fleet_(as_json: bool, **options: Any) -> None:
    """Work on a whole fleet, compared with psql: provision, migrate, show the status, find drift, back up one tenant.

    psql runs a file of the same statements on the same server, a db transaction for each tenant. The migrator adds one
    column, and also runs with nothing to do. The memory to visit all tenants once is measured too, of a service process
    and of its PostgreSQL backends. Targets are for 1,000 tenants on a quiet machine with two cores.

    Example:
        python -m scripts.benchmark fleet --tenants 1000

    Exit codes: 0 the figures are printed, whether the targets are met or not; 1 a tenant failed; 2 bad arguments.
    """
    plan = fleet.Plan(**options)
    report = _run(fleet.run, plan)
    if as_json:
        show_json({"benchmark": "fleet", "options": asdict(plan), **fleet.as_json(report)})
        return
    show_table(f"Fleet: {plan.tenants} tenants, {plan.rounds} rounds", fleet.COLUMNS, fleet.rows(report))
    show_table("Memory to visit each tenant once", fleet.FOOTPRINT_COLUMNS, fleet.footprint_rows(report))
    _show_machine(report.machine)


@main.command("brokers")
@click.option("--url", "urls", multiple=True, required=True, help="A broker, as in BROKER_URL; may be repeated.")
@_seconds_option(2.0)
@_number_option("--rounds", 5, "Slices of each way.")
@_number_option("--batch", 500, "Events that are published at once.")
@json_option
def brokers_(as_json: bool, **options: Any) -> None:
    """Events per second that brokers confirm, published by the service's own publishers.

    Each broker is measured with events of many wallets, and with those of one wallet, which follow one another. The
    events are of a made-up tenant, and are removed afterwards.

    Example:
        python -m scripts.benchmark brokers --url amqp://localhost --url redis://localhost --url nats://localhost

    Exit codes: 0 the brokers confirmed every event; 1 one did not, or could not be reached; 2 bad arguments.
    """
    plan = brokers.Plan(**options)
    figures = _run(brokers.run, plan)
    if as_json:
        told = {"rounds": plan.rounds, "seconds": plan.seconds, "batch": plan.batch}
        show_json({"benchmark": "brokers", "options": told, **brokers.as_json(figures)})
        return
    rows = [
        (
            each.title,
            f"{each.median_rate:,.0f}",
            f"{min(each.rates):,.0f}–{max(each.rates):,.0f}",
            f"{each.p50_ms:.1f}",
            f"{each.p99_ms:.1f}",
        )
        for each in figures
    ]
    columns = ("way", "events per second", "slowest–fastest", "batch p50 ms", "batch p99 ms")
    show_table(f"Brokers: {plan.rounds} slices of {plan.seconds:g} s each, {plan.batch} events a batch", columns, rows)


@main.command("events")
@_seconds_option(4.0)
@_number_option("--rounds", 5, "Slices of each way.")
@_number_option("--clients", 8, "Clients that pay at once.")
@_number_option("--wallets", 1000, "Wallets in each tenant.")
@_number_option("--tenants", 500, "Tenants that the relay asks at once.", least=2)
@json_option
def events_(as_json: bool, **options: Any) -> None:
    """What the feed of events costs: payments with its trigger, with a relay and under a held snapshot, each against
    payments without the trigger.

    It also measures how many events one process numbers in a second, how long the relay's question to TENANTS tenants
    takes, and the age of the oldest event without a number while the clients pay.

    Example:
        python -m scripts.benchmark events --tenants 2000

    Exit codes: 0 the figures are printed; 1 a call failed; 2 bad arguments.
    """
    plan = events.Plan(**options)
    report = _run(events.run, plan)
    if as_json:
        show_json({"benchmark": "events", "options": asdict(plan), **events.as_json(report)})
    else:
        _show_events(plan, report)


def _show_events(plan: events.Plan, report: events.Report) -> None:
    told = events.as_json(report)
    rows = [
        (
            each.title,
            f"{each.median_rate:,.0f}",
            f"{min(each.rates):,.0f}–{max(each.rates):,.0f}",
            f"{each.median_rate / report.baseline_rate:.2f}",
            *(f"{value:,}" for value in told["lag_ms"].get(each.name, {}).values()),
        )
        for each in report.figures
    ]
    columns = ("way", "payments per second", "slowest–fastest", "to the first", "lag p50 ms", "lag p99 ms")
    title = f"Events: {plan.clients} clients, {plan.rounds} slices of {plan.seconds:g} s each, {plan.wallets} wallets"
    show_table(title, columns, [(*row, *[""] * (len(columns) - len(row))) for row in rows])
    print(f"numbered by one process: {told['stamped_per_second']:,} events per second")
    print(f"the question to {plan.tenants} tenants: {told['sweep_ms']} ms, {told['sweep_in_payments']} payments' worth")
    _show_machine(report.machine)


def _show_ledger(plan: ledger.Plan, report: ledger.Report) -> None:
    title = f"Ledger: a wallet with {plan.transactions:,} transactions, {plan.rounds} slices of {plan.seconds:g} s each"
    show_table(title, ledger.COLUMNS, ledger.rows(report))
    print("Per second: the movements of a call if it has several, else calls.")
    _show_machine(report.machine)
    _show_books(report.books)


def _run(benchmark: Callable[[Plan, posting.Announce], Report], plan: Plan) -> Report:
    """Run a benchmark, with a progress bar on standard error if that is a terminal. Exits 1 if the benchmark fails."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("ETA"))
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=plan.expected_seconds)
    begun_seconds = 0.0

    def announce(step: str, expected_seconds: float) -> None:
        nonlocal begun_seconds
        bar.update(task, description=step, completed=begun_seconds)
        begun_seconds += expected_seconds

    try:
        with bar:
            return benchmark(plan, announce)
    except BenchmarkFailed as error:
        exit_with(str(error), FAILED)


def _show_posting(plan: posting.Plan, report: posting.Report) -> None:
    rows = [(*_row(each, report.baseline_rate), *_cpu_columns(each)) for each in report.figures]
    title = f"Posting: {plan.clients} clients, {plan.rounds} slices of {plan.seconds:g} s each, {plan.wallets} wallets"
    show_table(title, ("way", "per second", "slowest–fastest", "of TPC-B", "p50 ms", "p99 ms", *_CPU_COLUMNS), rows)
    _show_machine(report.machine)
    print(f"gunicorn {plan.workers} × {plan.threads} threads")
    _show_books(report.books)


def _show_books(all_books: Sequence[posting.Books]) -> None:
    for books in all_books:
        verdict = "sound" if books.agree else "NOT SOUND"
        print(f"{books.tenant}: {verdict}: {books.counted} transactions counted, {books.posted} in the ledger")
        for finding in books.findings:
            print(f"  wallet {finding.wallet_id} seq {finding.seq}: {finding.text}")


def _show_machine(machine: dict[str, Any]) -> None:
    durability = ", ".join(f"{name} {value}" for name, value in machine["durability"].items())
    print(
        f"{machine['cores']} cores ({machine['architecture']}), {machine['memory_gib']} GiB, "
        f"Python {machine['python']}, PostgreSQL {machine['postgresql']} on {machine['filesystem']}\n{durability}"
    )


def _row(figures: Figures, baseline_rate: float) -> tuple[str, ...]:
    return (
        figures.title,
        f"{figures.median_rate:,.0f}",
        f"{min(figures.rates):,.0f}–{max(figures.rates):,.0f}",
        f"{figures.median_rate / baseline_rate:.0%}",
        f"{figures.p50_ms:.2f}",
        f"{figures.p99_ms:.2f}",
    )


_CPU_COLUMNS = ("µs CPU: service", "PostgreSQL", "clients")


def _cpu_columns(figures: Figures) -> tuple[str, ...]:
    """The CPU time of one payment by process. Only one of the two services works in a slice."""
    spent = figures.cpu_us
    service = spent["service"] + spent["service alone"]
    return tuple(f"{microseconds:,.0f}" for microseconds in (service, spent["postgresql"], spent["clients"]))


if __name__ == "__main__":
    main()
