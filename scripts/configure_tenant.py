"""Change the settings of a tenant: what its members may keep wallets in, and what it may take of the service. Takes
effect on the next request. A currency is never taken away, since wallets may be kept in it, and the main one never
changes. A limit that is set to `default` is the service's again.
"""

from collections.abc import Sequence
from typing import Any

import rich_click as click

from app.db import admin_engine
from app.errors import Invalid
from app.tenant_settings import changed_settings
from app.tenants.audit import note_as_system
from scripts.support.console import BAD_ARGUMENTS, admin_url_or_exit, refusals_exit, settings_or_exit, stop
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.migrations.history import set_timeouts
from tenant_schemas.registry import change_settings, lock_named

DEFAULT = "default"


class Limit(click.ParamType[int | str, Any]):
    """A number, or `default`."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return value if value == DEFAULT else click.INT.convert(value, param, ctx)


@click.command(help=__doc__)
@click.argument("slug")
@click.option("--also", multiple=True, help="A currency to allow, as an ISO 4217 code; may be repeated.")
@click.option("--locale", help="For instance bs_BA.")
@click.option("--rate-limit", help="Requests of all its callers together, like 600/minute.")
@click.option("--max-concurrent-requests", type=Limit(), help="Requests at once in each process of the service.")
@click.option("--max-body-bytes", type=Limit(), help="The largest body of any request.")
@click.option("--statement-timeout-ms", type=Limit(), help="How long one of its statements may take.")
@click.option("--idle-in-transaction-timeout-ms", type=Limit(), help="How long its db transactions may do nothing.")
@click.option("--max-connections", type=Limit(), help="Connections to PostgreSQL in each process of the service.")
@refusals_exit()
def main(slug: str, also: tuple[str, ...], **told: Any) -> None:
    changes = {name: None if value == DEFAULT else value for name, value in told.items() if value is not None}
    if not also and not changes:
        stop("Nothing to change: give --also, --locale or a limit.", BAD_ARGUMENTS)
    with admin_engine(admin_url_or_exit(settings_or_exit())).begin() as connection:
        set_timeouts(connection)
        try:
            tenant = lock_named(connection, slug)
            if also:
                changes["currencies"] = _currencies(tenant.settings, also)
            changed = changed_settings(tenant.settings, changes)
        except (TenantNotFound, Invalid) as error:
            stop(str(error), BAD_ARGUMENTS)
        change_settings(connection, tenant.id, changed)
        told = {"before": {name: tenant.settings.get(name) for name in changed}, "after": dict(changed)}
        note_as_system(connection, tenant, "tenant.configure", **told)
    print(f"{slug}: " + ", ".join(f"{name} {value or DEFAULT}" for name, value in sorted(changed.items())))


def _currencies(settings: Any, also: Sequence[str]) -> list[str]:
    known = (settings.get("currency"), *settings.get("currencies", ()), *also)
    return [code for code in dict.fromkeys(known) if code]


if __name__ == "__main__":
    main()
