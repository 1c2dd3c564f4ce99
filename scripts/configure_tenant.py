"""Change the settings of a tenant: its currencies, its locale, its limits, how long it remembers former members, and
whether its staff needs a second factor.

The service applies them from the tenant's next request on. A currency can be added but not removed, because wallets may
use it, and the main currency can't be changed. A limit set to `default` is the service's default again.

Example:
    python -m scripts.configure_tenant km --rate-limit 600/minute --max-connections default

Prints the settings that were changed.

Exit codes: 0 the settings are changed; 1 the database refused the change; 2 bad arguments, or there is no tenant SLUG.
With 1 and 2 nothing has changed.
"""

from collections.abc import Sequence
from typing import Any

import rich_click as click

from app.db import admin_engine
from app.errors import Invalid
from app.tenant_settings import changed_settings
from app.tenants.audit import add_system_entry
from scripts.support.console import BAD_ARGUMENTS, admin_url_or_exit, exit_with, settings_or_exit
from scripts.support.script import Script
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.registry import change_settings, lock_tenant_by_slug
from tenant_schemas.visits import check_schema

DEFAULT = "default"


class Limit(click.ParamType[int | str, Any]):
    """A number, or `default`."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return value if value == DEFAULT else click.INT.convert(value, param, ctx)


@click.command(cls=Script, help=__doc__)
@click.argument("slug")
@click.option("--also", multiple=True, help="Currency to allow, an ISO 4217 code; may be repeated.")
@click.option("--locale", help="How account statements write amounts and times, for example bs_BA.")
@click.option("--rate-limit", help="Requests of all callers together, for example 600/minute.")
@click.option("--caller-rate-limit", help="Requests of one caller, for example 300/minute.")
@click.option("--max-concurrent-requests", type=Limit(), help="Requests at once in each process of the service.")
@click.option("--max-body-bytes", type=Limit(), help="Largest request body, in bytes.")
@click.option("--statement-timeout-ms", type=Limit(), help="Longest SQL statement, in milliseconds.")
@click.option("--idle-in-transaction-timeout-ms", type=Limit(), help="Longest idle time in a db transaction, in ms.")
@click.option("--max-connections", type=Limit(), help="PostgreSQL connections in each process of the service.")
@click.option("--former-member-days", type=Limit(), help="Days to keep who a removed member was. Default: 3650.")
@click.option(
    "--require-second-factor/--no-require-second-factor",
    default=None,
    help="Whether admins, auditors and operators need a second factor in this tenant.",
)
def main(slug: str, also: tuple[str, ...], **options: Any) -> None:
    changes = {name: None if value == DEFAULT else value for name, value in options.items() if value is not None}
    if not also and not changes:
        exit_with("There is nothing to change: give an option.", BAD_ARGUMENTS)
    with admin_engine(admin_url_or_exit(settings_or_exit())).begin() as connection:
        set_timeouts(connection)
        try:
            tenant = lock_tenant_by_slug(connection, slug)
            check_schema(connection, tenant)  # Its audit log gets an entry.
            if also:
                changes["currencies"] = _currencies(tenant.settings, also)
            changed = changed_settings(tenant.settings, changes)
        except (TenantNotFound, Invalid) as error:
            exit_with(str(error), BAD_ARGUMENTS)
        change_settings(connection, tenant.id, changed)
        change = {"before": {name: tenant.settings.get(name) for name in changed}, "after": dict(changed)}
        add_system_entry(connection, tenant, "tenant.configure", **change)
    shown = {name: DEFAULT if value is None else value for name, value in sorted(changed.items())}
    print(f"{slug}: " + ", ".join(f"{name} {value}" for name, value in shown.items()))


def _currencies(settings: Any, also: Sequence[str]) -> list[str]:
    known = (settings.get("currency"), *settings.get("currencies", ()), *also)
    return [code for code in dict.fromkeys(known) if code]


if __name__ == "__main__":
    main()
