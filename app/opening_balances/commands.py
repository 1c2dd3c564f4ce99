"""`flask wallets initialize`, `import` and `reconcile`: the migration from calculated to real balances."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from itertools import islice
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from flask.cli import with_appcontext
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sqlalchemy.exc import SQLAlchemyError

from app.db import db
from app.opening_balances import runs, service
from app.opening_balances.calculation import Announce, Calculation
from app.opening_balances.report import ReconciliationFile, Report, reconciliation_file
from app.opening_balances.rows import COUNTS, COUNTS_NOT, DEPOSITS, ORDERS, Directory, Reader, WrongFile
from app.tenant_visits import chosen_tenants, lock_timeout_option, visit_tenants
from app.wallets.currencies import allowed_currencies, main_currency
from tenant_schemas.errors import TenancyError
from tenant_schemas.flask import tenant_context
from tenant_schemas.printable import printable
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import short_reason

_SHOWN: Final = 50
_BEFORE_STANDS: Final = (
    "Earlier batches are committed: run it again to continue, with a smaller --batch after a time-out."
)
_FORMAT: Final = f"""
The files are CSV by RFC 4180 in UTF-8 with a header line, and contain all rows of the old system, not only new ones:

\b
orderId,user,amount,currency,status,orderedAt
1001,ana@example.com,12.50,EUR,paid,2024-05-01
1002,6f1c2f0e-6c1f-4f0e-9b39-0d6b1f3f8a10,4.00,,cancelled,
\b
user,amount,currency,reference,depositedAt
ana@example.com,20.00,EUR,wire 77,2024-04-30

\b
A user is an address or an id. The default currency is the tenant's main one. A calculated balance is the sum of
the deposits minus the orders that count: those without a status and {", ".join(sorted(COUNTS - {""}))};
not {", ".join(sorted(COUNTS_NOT))}.
"""


def _batch_option(function: Callable[..., None]) -> Callable[..., None]:
    size = click.IntRange(1, 10_000)
    return click.option("--batch", type=size, default=5000, show_default=True, help="Users per db transaction.")(
        function
    )


def _file_option(name: str, **more: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, type=click.Path(exists=True, dir_okay=False, path_type=Path), **more)


_on_error = click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="On wrong rows: stop and do nothing, or skip every user with a wrong row.",
)
_report = click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write each user's reconciliation as CSV."
)
_dry_run = click.option("--dry-run", "is_dry", is_flag=True, help="Do the same work, and roll each batch back.")


def _plainly(function: Callable[..., None]) -> Callable[..., None]:
    """Report faults of a file without a stack trace."""

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except (WrongFile, OSError) as error:
            raise click.ClickException(str(error)) from None

    return call


@contextmanager
def _saying_what_stands(*, is_dry: bool) -> Iterator[None]:
    """An error of the database says which batches are committed."""
    try:
        yield
    except SQLAlchemyError as error:
        db.session.rollback()
        raise click.ClickException(
            f"The database refused: {short_reason(error)}\n{_what_stands(is_dry=is_dry)}"
        ) from None


def _what_stands(*, is_dry: bool) -> str:
    return "Nothing was changed: it was a dry run." if is_dry else _BEFORE_STANDS


@click.command("initialize")
@click.option("--tenant", "slugs", multiple=True, help="Only this tenant; repeatable. Default: all active tenants.")
@click.option("--currency", help="Default: each tenant's main currency.")
@_batch_option
@_dry_run
@lock_timeout_option
@with_appcontext
@_plainly
def initialize(*, slugs: tuple[str, ...], currency: str | None, batch: int, is_dry: bool, lock_timeout_ms: int) -> None:
    """Open a wallet for every member without one. It can be repeated. Prints the number of opened wallets. A tenant
    that fails stops no other. Exits 1 if one has failed.
    """

    def open_wallets(tenant: Tenant) -> tuple[int, str]:
        with _progress(f"{tenant.slug}: opening wallets") as announce:
            chosen = currency or main_currency()
            if chosen not in allowed_currencies():
                raise _NotAllowed(f"the tenant does not allow wallets in {chosen}")
            return runs.initialize(chosen, batch=batch, is_dry=is_dry, announce=announce), chosen

    tenants, failed = chosen_tenants(slugs), []
    for visit in visit_tenants(tenants, open_wallets, lock_timeout_ms=lock_timeout_ms):
        if visit.result is None:
            failed.append(visit.tenant.slug)
            click.echo(f"{visit.tenant.slug}: {visit.failure}", err=True)
            continue
        opened, chosen = visit.result
        click.echo(f"{visit.tenant.slug}: {opened} wallets opened in {chosen}{_dryly(is_dry=is_dry)}")
    _exit_after(tenants, failed, is_dry=is_dry)


class _NotAllowed(TenancyError):
    """The tenant's settings do not allow what the command is to do there."""


def _exit_after(tenants: Sequence[Tenant], failed: Sequence[str], *, is_dry: bool, is_off: bool = False) -> NoReturn:
    """Print which tenants failed, and exit 1 if one did."""
    if failed:
        done = len(tenants) - len(failed)
        click.echo(f"{done} of {len(tenants)} tenants done, failed: {', '.join(failed)}.", err=True)
        click.echo(_what_stands(is_dry=is_dry), err=True)
    sys.exit(1 if failed or is_off else 0)


@click.command("import", epilog=_FORMAT)
@_file_option("--orders", required=True)
@_file_option("--deposits")
@click.option("--tenant", "slug", help="Optional if there is only one active tenant.")
@_on_error
@click.option("--keep-limits", is_flag=True, help="Refuse a balance that the wallet's credit limit does not cover.")
@_batch_option
@_report
@_dry_run
@with_appcontext
@_plainly
def import_(
    *,
    orders: Path,
    deposits: Path | None,
    slug: str | None,
    on_error: str,
    keep_limits: bool,
    report: Path | None,
    **run: Any,
) -> None:
    """Post the balances that the old system's rows add up to, as opening transactions.

    The same rows again post nothing; more rows post the difference. A balance below zero raises the wallet's credit
    limit to cover it, unless --keep-limits is given. Exits 1 if a row is wrong and nothing was posted, or if a posted
    balance differs from the calculated one.
    """
    post = partial(service.post_openings, raises_limits=not keep_limits)
    with (
        tenant_context(_one_tenant(slug)) as tenant,
        _saying_what_stands(is_dry=run["is_dry"]),
        _calculated(orders, deposits, on_error) as (found, people),
    ):
        with reconciliation_file(report, orders, deposits) as file, _progress("posting") as announce:
            done = runs.run_balances(found, post, people, file, announce=announce, **run)
        _tell_left_out(found, people)
        click.echo(f"{tenant.slug}: imported {found.count_rows()} rows{_dryly(**run)}")
    for line in (*done.posted(), *done.compared()):
        click.echo(line)
    sys.exit(1 if done.off else 0)


@click.command("reconcile", epilog=_FORMAT)
@click.option("--tenant", "slugs", multiple=True, help="Only this tenant; repeatable. Default: all active tenants.")
@_file_option("--orders", help="Calculate again from these files.")
@_file_option("--deposits")
@_on_error
@_batch_option
@_report
@_dry_run
@lock_timeout_option
@with_appcontext
@_plainly
def reconcile(
    *,
    slugs: tuple[str, ...],
    orders: Path | None,
    deposits: Path | None,
    on_error: str,
    report: Path | None,
    lock_timeout_ms: int,
    **run: Any,
) -> None:
    """Compare calculated balances with the posted opening transactions. Posts nothing. A tenant that fails stops no
    other. Exits 1 on a difference or a failure.

    Without files it compares the last calculated balances. With files it calculates again; a user imported earlier and
    missing in the files has a calculated balance of zero.
    """
    if orders is None and deposits is not None:
        raise click.UsageError("--deposits needs --orders: balances are calculated from both.")
    tenants = chosen_tenants(slugs)
    if len(tenants) > 1 and (orders or report):
        raise click.UsageError(f"Files belong to one tenant: name it with --tenant, one of {_slugs(tenants)}.")

    def compare(_: Tenant) -> Report:
        with reconciliation_file(report, orders, deposits) as file:
            return _compare_files(orders, deposits, on_error, file, run) if orders else _compare_remembered(file, run)

    off, failed = 0, []
    for visit in visit_tenants(tenants, compare, lock_timeout_ms=lock_timeout_ms):
        done = visit.result
        if done is None:
            failed.append(visit.tenant.slug)
            click.echo(f"{visit.tenant.slug}: {visit.failure}", err=True)
            continue
        click.echo(f"{visit.tenant.slug}: reconciled{_dryly(**run)}, {done.off} differences")
        for line in done.compared():
            click.echo(line)
        off += done.off
    _exit_after(tenants, failed, is_dry=run["is_dry"], is_off=bool(off))


def _compare_remembered(file: ReconciliationFile, run: dict[str, Any]) -> Report:
    report = Report()
    with _progress("comparing") as announce:
        runs.run_remembered(report, file, None, announce=announce, **run)
    return report


def _compare_files(
    orders: Path, deposits: Path | None, on_error: str, file: ReconciliationFile, run: dict[str, Any]
) -> Report:
    with _calculated(orders, deposits, on_error) as (found, people):
        with _progress("comparing") as announce:
            report = runs.run_balances(found, service.compare_openings, people, file, announce=announce, **run)
        with _progress("looking for who is gone") as announce:
            runs.run_remembered(report, file, found, announce=announce, **run)
        _tell_left_out(found, people)
    return report


def _one_tenant(slug: str | None) -> Tenant:
    tenants = chosen_tenants([slug] if slug else [])
    if len(tenants) != 1:
        raise click.UsageError(f"Name the tenant with --tenant, one of {_slugs(tenants)}.")
    return tenants[0]


def _slugs(tenants: Sequence[Tenant]) -> str:
    return ", ".join(tenant.slug for tenant in tenants) or "none"


@contextmanager
def _calculated(orders: Path, deposits: Path | None, on_error: str) -> Iterator[tuple[Calculation, Directory]]:
    """The calculated balances of the bound tenant. Wrong rows are listed, and end the run unless they are to be
    skipped.
    """
    people = runs.read_directory()
    with Calculation(Reader(people, allowed_currencies())) as calculation:
        for kind, path in ((ORDERS, orders), (DEPOSITS, deposits)):
            if path is not None:
                with _progress(f"reading {path.name}") as announce:
                    calculation.load(kind, path, announce)
        calculation.finish()
        runs.name_strangers(calculation)
        count = calculation.count_wrong_rows()
        for fault in calculation.wrong_rows(_SHOWN):
            click.echo(f"{fault.file} line {fault.line}: {fault.text}", err=True)
        if count > _SHOWN:
            click.echo(f"and {count - _SHOWN} more", err=True)
        if count and on_error == "stop":
            raise click.ClickException(f"{count} rows are wrong: nothing was posted.")
        yield calculation, people


def _tell_left_out(found: Calculation, people: Directory) -> None:
    count = found.count_left_out()
    if not found.count_wrong_rows():
        return
    click.echo(f"{found.count_wrong_rows()} rows are wrong; {count} users were skipped for them")
    for user_id in islice(found.left_out(), _SHOWN):
        click.echo(f"  left out: {printable(people[user_id].email)} ({user_id})")
    if count > _SHOWN:
        click.echo(f"  and {count - _SHOWN} more")


def _dryly(*, is_dry: bool, **_: Any) -> str:
    return " (dry run: rolled back)" if is_dry else ""


@contextmanager
def _progress(what: str) -> Iterator[Announce]:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("ETA"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


COMMANDS: Final = (initialize, import_, reconcile)
