"""Make a tenant: its role, its schema at the head of the history, and its row in the registry. All or nothing.

With --count N it makes SLUG_1 to SLUG_N, alike but for their names. With --file it makes those of a CSV file, whose
header names its columns: slug, currency, and if you like name, schema_name, locale and also (currencies with spaces
between). All names and settings are checked before the first is made; then each is a db transaction of its own, and one
that can't be made stops nobody. Exits 1 if any was not made.
"""

import csv
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
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
    json_option,
    refusals_exit,
    settings_or_exit,
    show_json,
    stop,
)
from tenant_schemas.errors import NameRefused
from tenant_schemas.lifecycle.provision import new_tenant, provision_many
from tenant_schemas.schema_diff.reference import store_head_fingerprint
from tenant_schemas.tenant import Tenant

_COLUMNS: Final = ("slug", "currency", "name", "schema_name", "locale", "also")


@click.command(help=__doc__)
@click.argument("slug", required=False)
@click.option("--currency", help="ISO 4217 code of the tenant's wallets, for instance EUR.")
@click.option("--also", multiple=True, help="Another currency that members may have a wallet in; may be repeated.")
@click.option("--locale", help="How statements on paper write amounts and times, for instance bs_BA.")
@click.option("--name", help="The name people see. Default: the slug.")
@click.option("--schema-name", help="Default: SLUG_schema.")
@click.option("--count", type=click.IntRange(1, 100_000), help="Make so many, numbered.")
@click.option("--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A CSV file.")
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
        stop("Give a SLUG and its --currency, or a --file. Numbered tenants have schemas of their own.", BAD_ARGUMENTS)
    row = {"slug": slug, "currency": currency, "name": name, "schema_name": schema_name, "locale": locale}
    rows = _read(file) if file else _numbered(row | {"also": " ".join(also)}, count)
    tenants = _checked(rows)
    settings = settings_or_exit()
    failed = _make(settings, tenants, as_json=as_json)
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
            stop(f"{file}, line {reader.line_num}: {error}", BAD_ARGUMENTS)
    if not {"slug", "currency"} <= header <= set(_COLUMNS):
        stop(f"{file} needs a header of slug, currency and, if you like, {', '.join(_COLUMNS[2:])}.", BAD_ARGUMENTS)
    return rows


def _checked(rows: Sequence[dict[str, Any]]) -> list[Tenant]:
    """The tenants as they will be. Names every row that is wrong, and then makes none."""
    tenants: list[Tenant] = []
    faults: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            tenants.append(_tenant_of(row))
        except (Invalid, NameRefused) as error:
            faults.append(f"{f'Row {number}: ' if len(rows) > 1 else ''}{error}")
    for what in ("slug", "schema_name"):
        counted = Counter(getattr(tenant, what) for tenant in tenants)
        faults += [f"{what} {name!r} is there twice." for name, times in counted.items() if times > 1]
    if faults:
        stop("\n".join(faults), BAD_ARGUMENTS)
    return tenants


def _tenant_of(row: dict[str, Any]) -> Tenant:
    if None in row or None in (row["slug"], row["currency"]):
        raise NameRefused("It has not as many cells as the header.")
    told: dict[str, Any] = {"currency": row["currency"]}
    if row.get("also"):
        told["currencies"] = list(dict.fromkeys((row["currency"], *row["also"].split())))
    if row.get("locale"):
        told["locale"] = row["locale"]
    return new_tenant(
        MIGRATIONS,
        slug=row["slug"],
        name=row.get("name") or row["slug"],
        settings=new_settings(told),
        schema_name=row.get("schema_name") or None,
        reserved_slugs=RESERVED_SLUGS,
    )


def _make(settings: Settings, tenants: Sequence[Tenant], *, as_json: bool) -> int:
    """Make them and tell of each; returns how many were not made."""
    engine = admin_engine(admin_url_or_exit(settings))
    made: list[Tenant] = []
    failed = 0
    try:
        with refusals_exit():
            for tenant, error in provision_many(engine, MIGRATIONS, tenants, settings.tenant_secret):
                if error:
                    failed += 1
                    print(str(error), file=sys.stderr)
                    continue
                made.append(tenant)
                if not as_json:
                    print(_words(tenant))
    finally:
        if as_json:
            show_json([asdict(tenant) for tenant in made] if len(tenants) > 1 else asdict(made[0]) if made else None)
    return failed


def _words(tenant: Tenant) -> str:
    currency = tenant.settings["currency"]
    return f"Tenant {tenant.slug} is ready: schema {tenant.schema_name}, login {tenant.role_name}, {currency}."


if __name__ == "__main__":
    main()
