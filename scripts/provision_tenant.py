"""Provision a tenant: its login role, its schema at the head of the history, and its row in the registry. All or
nothing.

With --count N it provisions the tenants SLUG_1 to SLUG_N with the same settings. With --file it provisions the tenants
of a CSV file. Its header names the columns: slug and currency, and optionally name, schema_name, locale and also
(currencies, separated by spaces). All rows are checked before the first tenant is provisioned. Then each has its own
db transaction, and one that fails does not stop the others.

Examples:
    python -m scripts.provision_tenant km --currency BAM --also EUR --locale bs_BA
    python -m scripts.provision_tenant --file tenants.csv

Prints one line for each new tenant: slug, schema, login role and currency.

Exit codes: 0 all tenants are provisioned; 1 a tenant could not be provisioned, for example because its slug is taken:
the errors are on standard error; 2 bad arguments, or the file has a fault: no tenant was provisioned.
"""

import csv
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import rich_click as click

from app.config import Settings
from app.db import admin_engine
from app.errors import Invalid
from app.tenancy import MIGRATIONS, RESERVED_SLUGS
from app.tenant_settings import new_settings
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    admin_url_or_exit,
    exit_with,
    json_option,
    settings_or_exit,
    show_json,
)
from scripts.support.script import Script
from tenant_schemas.errors import NameRefused
from tenant_schemas.lifecycle.provision import new_tenant, provision_many
from tenant_schemas.schema_diff.reference import store_head_fingerprint
from tenant_schemas.tenant import Tenant

_COLUMNS: Final = ("slug", "currency", "name", "schema_name", "locale", "also")


@click.command(cls=Script, help=__doc__)
@click.argument("slug", required=False)
@click.option("--currency", help="Main currency of the tenant, an ISO 4217 code, for example EUR.")
@click.option("--also", multiple=True, help="Another currency for wallets; may be repeated.")
@click.option("--locale", help="How account statements write amounts and times, for example bs_BA.")
@click.option("--name", help="Display name. Default: SLUG.")
@click.option("--schema-name", help="Name of the PostgreSQL schema. Default: SLUG_schema.")
@click.option("--count", type=click.IntRange(1, 100_000), help="Provision this number of tenants, SLUG_1 and so on.")
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file with one tenant in each row.",
)
@json_option
def main(
    *,
    slug: str | None,
    currency: str | None,
    also: tuple[str, ...],
    locale: str | None,
    name: str | None,
    schema_name: str | None,
    count: int | None,
    file: Path | None,
    as_json: bool,
) -> None:
    if (slug is None) == (file is None) or (slug and not currency) or (schema_name and count):
        exit_with(
            "Give SLUG and --currency, or --file. --schema-name is for one tenant, not with --count.", BAD_ARGUMENTS
        )
    row = {"slug": slug, "currency": currency, "name": name, "schema_name": schema_name, "locale": locale}
    rows = _read(file) if file else _numbered(row | {"also": " ".join(also)}, count)
    tenants = _planned_tenants(rows)
    settings = settings_or_exit()
    failed = _provision(settings, tenants, as_json=as_json)
    store_head_fingerprint(admin_engine(admin_url_or_exit(settings)), MIGRATIONS)
    sys.exit(FAILED if failed else 0)


def _numbered(row: dict[str, Any], count: int | None) -> list[dict[str, Any]]:
    if count is None:
        return [row]
    return [row | {"slug": f"{row['slug']}_{number}"} for number in range(1, count + 1)]


def _read(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True)
        try:
            header, rows = set(reader.fieldnames or ()), list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            exit_with(f"{file}, line {reader.line_num}: {error}", BAD_ARGUMENTS)
    if not {"slug", "currency"} <= header <= set(_COLUMNS):
        allowed = ", ".join(_COLUMNS[2:])
        exit_with(f"{file} has a wrong header: it needs slug and currency, and may have {allowed}.", BAD_ARGUMENTS)
    return rows


def _planned_tenants(rows: Sequence[dict[str, Any]]) -> list[Tenant]:
    """The tenants of the rows, not yet provisioned. Exits 2 with a message for every row that has a fault."""
    tenants: list[Tenant] = []
    faults: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            tenants.append(_planned_tenant(row))
        except (Invalid, NameRefused) as error:
            faults.append(f"{f'Row {number}: ' if len(rows) > 1 else ''}{error}")
    for column in ("slug", "schema_name"):
        counts = Counter(getattr(tenant, column) for tenant in tenants)
        faults += [f"{column} {name!r} occurs twice." for name, count in counts.items() if count > 1]
    if faults:
        exit_with("\n".join(faults), BAD_ARGUMENTS)
    return tenants


def _planned_tenant(row: dict[str, Any]) -> Tenant:
    if None in row or None in (row["slug"], row["currency"]):
        raise NameRefused("The row does not have as many cells as the header.")
    settings: dict[str, Any] = {"currency": row["currency"]}
    if row.get("also"):
        settings["currencies"] = list(dict.fromkeys((row["currency"], *row["also"].split())))
    if row.get("locale"):
        settings["locale"] = row["locale"]
    return new_tenant(
        MIGRATIONS,
        slug=row["slug"],
        name=row.get("name") or row["slug"],
        settings=new_settings(settings),
        schema_name=row.get("schema_name") or None,
        reserved_slugs=RESERVED_SLUGS,
    )


def _provision(settings: Settings, tenants: Sequence[Tenant], *, as_json: bool) -> int:
    """Provision the tenants and print each result; returns the number of failures."""
    engine = admin_engine(admin_url_or_exit(settings))
    provisioned: list[Tenant] = []
    failed = 0
    try:
        for tenant, error in provision_many(engine, MIGRATIONS, tenants, settings.tenant_secret):
            if error:
                failed += 1
                print(str(error), file=sys.stderr)
                continue
            provisioned.append(tenant)
            if not as_json:
                print(_summary(tenant))
    finally:
        if as_json:
            shown = provisioned
            show_json(shown if len(tenants) > 1 else shown[0] if shown else None)
    return failed


def _summary(tenant: Tenant) -> str:
    currency = tenant.settings["currency"]
    return f"Tenant {tenant.slug} is ready: schema {tenant.schema_name}, login {tenant.role_name}, {currency}."


if __name__ == "__main__":
    main()
