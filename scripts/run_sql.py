"""Ask many tenants one question: `python -m scripts.run_sql --all "SELECT count(*) FROM wallets"`. One table comes out,
with a first column that says whose row it is.

Each tenant is asked under its own role, in its own schema, read-only: whatever the statement is, nothing is changed. A
tenant that fails is named, and the others go on; then it exits 1, as when a tenant's answer has other columns than the
first one's.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import rich_click as click

from app.config import Settings
from app.db import ROLES
from scripts.support.console import BAD_ARGUMENTS, FAILED, refusals_exit, settings_or_exit, show_json, show_table, stop
from tenant_schemas.connections import Connections, Limits
from tenant_schemas.fan_out import Answer, query_all_tenants
from tenant_schemas.registry import all_tenants, get_tenant
from tenant_schemas.tenant import Tenant


@click.command(help=__doc__)
@click.argument("statement")
@click.option("--all", "is_all", is_flag=True, help="Every tenant, also suspended and archived ones.")
@click.option("--tenant", "slugs", multiple=True, help="Only this tenant; may be repeated.")
@click.option("--jobs", type=click.IntRange(1, 64), default=4, show_default=True, help="Tenants asked at once.")
@click.option("--max-rows", type=click.IntRange(1, 10_000_000), default=1000, show_default=True, help="Of each tenant.")
@click.option("--timeout-ms", type=click.IntRange(1, 2**31 - 1), help="For each tenant. Default: the service's own.")
@click.option("--json", "form", flag_value="json", help="Print JSON for machines.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV, tenant by tenant as they answer.")
def main(
    *,
    statement: str,
    is_all: bool,
    slugs: tuple[str, ...],
    jobs: int,
    max_rows: int,
    timeout_ms: int | None,
    form: str | None,
) -> None:
    if is_all == bool(slugs):
        stop("Say --all, or name tenants with --tenant.", BAD_ARGUMENTS)
    settings = settings_or_exit()
    connections = _connections(settings, jobs, timeout_ms or settings.statement_timeout_ms)
    try:
        with refusals_exit():
            tenants = _tenants(connections, slugs)
        sheet = _Sheet(query_all_tenants(connections, tenants, statement, max_rows=max_rows, jobs=jobs))
        _show(sheet, form)
    finally:
        connections.close()
    sheet.tell()
    sys.exit(FAILED if sheet.failures else 0)


class _Sheet:
    """The rows of all answers that have the columns of the first one; what became of the others."""

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
                error = f"Its columns are other ones: {', '.join(answer.columns)}."
            if error is not None:
                self.failures.append({"tenant": answer.slug, "sqlstate": answer.sqlstate, "error": error})
                continue
            if answer.is_truncated:
                self.cut.append(answer.slug)
            for row in answer.rows:
                yield answer.slug, *row

    def tell(self) -> None:
        """Say on the side what is missing."""
        if self.cut:
            print(f"There are more rows, cut at --max-rows, of: {', '.join(self.cut)}.", file=sys.stderr)
        for failure in self.failures:
            code = f" ({failure['sqlstate']})" if failure["sqlstate"] else ""
            print(f"{failure['tenant']} failed{code}: {_printable(failure['error'])}", file=sys.stderr)


def _connections(settings: Settings, jobs: int, timeout_ms: int) -> Connections:
    limits = Limits(max_connections=jobs + 1, statement_timeout_ms=timeout_ms)
    pool_role = ROLES.pool if settings.tenant_logins == "shared" else None
    return Connections(settings.database_url, settings.tenant_secret, limits, pool_role=pool_role)


def _tenants(connections: Connections, slugs: tuple[str, ...]) -> list[Tenant]:
    with connections.shared.begin() as connection:
        return [get_tenant(connection, slug) for slug in dict.fromkeys(slugs)] or all_tenants(connection)


def _show(sheet: _Sheet, form: str | None) -> None:
    rows = iter(sheet)
    first = list(islice(rows, 1))  # Now the columns are known.
    columns = ("tenant", *(sheet.columns or ()))
    if form == "csv":
        csv.writer(sys.stdout).writerows(chain([columns], first, rows))
        return
    rows_of_all = [*first, *rows]
    if form == "json":
        show_json({"columns": columns, "rows": rows_of_all, "failures": sheet.failures, "cut": sheet.cut})
    else:
        show_table("", [*map(_printable, columns)], [[_printable(cell) for cell in row] for row in rows_of_all])


def _printable(cell: Any) -> str:
    """What a tenant has written must not move the cursor of whoever reads it."""
    text = "" if cell is None else json.dumps(cell, default=str) if isinstance(cell, dict | list) else str(cell)
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


if __name__ == "__main__":
    main()
