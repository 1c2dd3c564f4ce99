"""Run one SQL statement in many tenants, read-only, and print one table. Its first column is the tenant's slug.

The statement runs under each tenant's own role, in its own schema, in a read-only db transaction, so it can't change
anything. A tenant that fails does not stop the others; if its tables are locked, the session that locks them is named.

Examples:
    python -m scripts.run_sql --all "SELECT count(*) FROM wallets"
    python -m scripts.run_sql --tenant eur --tenant km --csv "SELECT id FROM wallets"

Prints the rows on standard output; on standard error the tenants that failed, and those with more rows than --max-rows.

Exit codes: 0 every tenant answered; 1 a tenant failed, or its result has other columns than the first one's; 2 bad
arguments, or there is no such tenant.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import rich_click as click

from app.config import Settings
from app.db import ROLES
from app.tenant_visits import lock_holders_by
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    exit_with,
    lock_timeout_option,
    settings_or_exit,
    show_json,
    show_table,
)
from scripts.support.script import Script
from tenant_schemas.connections import Connections, Limits
from tenant_schemas.csv_writer import CsvWriter
from tenant_schemas.fan_out import Answer, Locks, query_all_tenants
from tenant_schemas.printable import printable
from tenant_schemas.registry import all_tenants, get_tenant
from tenant_schemas.tenant import Tenant


@click.command(cls=Script, help=__doc__)
@click.argument("statement")
@click.option("--all", "is_all", is_flag=True, help="Run it in every tenant, of any status.")
@click.option("--tenant", "slugs", multiple=True, help="Slug of a tenant; may be repeated.")
@click.option("--jobs", type=click.IntRange(1, 64), default=4, show_default=True, help="Tenants at once.")
@click.option(
    "--max-rows",
    type=click.IntRange(1, 10_000_000),
    default=1000,
    show_default=True,
    help="Most rows to read from one tenant.",
)
@click.option(
    "--timeout-ms",
    type=click.IntRange(1, 2**31 - 1),
    help="Longest run in one tenant, in milliseconds. Default: STATEMENT_TIMEOUT_MS.",
)
@lock_timeout_option
@click.option("--json", "output_format", flag_value="json", help="Print the result as JSON.")
@click.option(
    "--csv",
    "output_format",
    flag_value="csv",
    help="Print the result as CSV, each tenant when it answers. Text that a spreadsheet would run as a formula gets an "
    "apostrophe; --json prints it unchanged.",
)
def main(
    *,
    statement: str,
    is_all: bool,
    slugs: tuple[str, ...],
    jobs: int,
    max_rows: int,
    timeout_ms: int | None,
    lock_timeout_ms: int,
    output_format: str | None,
) -> None:
    if is_all == bool(slugs):
        exit_with("Give --all, or one or more --tenant SLUG.", BAD_ARGUMENTS)
    settings = settings_or_exit()
    connections = _connections(settings, jobs, timeout_ms or settings.statement_timeout_ms)
    try:
        tenants = _tenants(connections, slugs)
        locks = Locks(lock_timeout_ms, lock_holders_by(settings.admin_database_url))
        result = _Result(query_all_tenants(connections, tenants, statement, max_rows=max_rows, locks=locks, jobs=jobs))
        _show(result, output_format)
    finally:
        connections.close()
    _warn(result)
    sys.exit(FAILED if result.failures else 0)


class _Result:
    """Iterates over the rows of all tenants that have the first one's columns. Afterwards `failures` has the other
    tenants, and `cut` the tenants with more rows than were read.
    """

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers = answers
        self.columns: tuple[str, ...] | None = None
        self.failures: list[dict[str, Any]] = []
        self.cut: list[str] = []

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for answer in self._answers:
            error = answer.error
            if error is None and self.columns is None:
                self.columns = answer.columns
            elif error is None and answer.columns != self.columns:
                error = f"Its columns differ from the first tenant's: {', '.join(answer.columns)}."
            if error is not None:
                self.failures.append({"tenant": answer.slug, "sqlstate": answer.sqlstate, "error": error})
                continue
            if answer.is_truncated:
                self.cut.append(answer.slug)
            for row in answer.rows:
                yield answer.slug, *row


def _connections(settings: Settings, jobs: int, timeout_ms: int) -> Connections:
    limits = Limits(max_connections=jobs + 1, statement_timeout_ms=timeout_ms)
    pool_role = ROLES.pool if settings.tenant_logins == "shared" else None
    return Connections(settings.database_url, settings.tenant_secret, limits, pool_role=pool_role)


def _tenants(connections: Connections, slugs: tuple[str, ...]) -> list[Tenant]:
    with connections.shared.begin() as connection:
        return [get_tenant(connection, slug) for slug in dict.fromkeys(slugs)] or all_tenants(connection)


def _show(result: _Result, output_format: str | None) -> None:
    rows = iter(result)
    first = list(islice(rows, 1))  # The columns are known with the first row.
    columns = ("tenant", *(result.columns or ()))
    if output_format == "csv":
        CsvWriter(sys.stdout).write_all([*map(_text_of_json, row)] for row in chain([columns], first, rows))
        return
    rows_of_all = [*first, *rows]
    if output_format == "json":
        show_json({"columns": columns, "rows": rows_of_all, "failures": result.failures, "cut": result.cut})
    else:
        show_table("", [*map(_printable, columns)], [[_printable(cell) for cell in row] for row in rows_of_all])


def _warn(result: _Result) -> None:
    """Print on standard error the tenants that failed, and those whose rows were not all read."""
    if result.cut:
        print(f"Not all rows were read (see --max-rows) of: {', '.join(result.cut)}.", file=sys.stderr)
    for failure in result.failures:
        code = f" ({failure['sqlstate']})" if failure["sqlstate"] else ""
        print(f"{failure['tenant']} failed{code}: {_printable(failure['error'])}", file=sys.stderr)


def _text_of_json(cell: Any) -> Any:
    return json.dumps(cell, default=str) if isinstance(cell, dict | list) else cell


def _printable(cell: Any) -> str:
    """Escapes control characters: data of a tenant must not control the operator's terminal."""
    return "" if cell is None else printable(str(_text_of_json(cell)))


if __name__ == "__main__":
    main()
