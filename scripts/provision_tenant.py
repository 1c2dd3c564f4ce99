"""Make a tenant: its role, its schema at the head of the history, and its row in the registry. All or nothing."""

from dataclasses import asdict
from typing import Any

import rich_click as click

from app.db import admin_engine
from app.errors import Invalid
from app.tenancy import MIGRATIONS, RESERVED_SLUGS
from app.tenant_settings import new_settings
from scripts.console import (
    BAD_ARGUMENTS,
    FAILED,
    admin_url_or_exit,
    json_option,
    settings_or_exit,
    show_json,
    stop,
)
from tenant_schemas.errors import NameRefused, ProvisioningError
from tenant_schemas.provisioning import provision


@click.command(help=__doc__)
@click.argument("slug")
@click.option("--currency", required=True, help="ISO 4217 code of the tenant's wallets, for instance EUR.")
@click.option("--also", multiple=True, help="Another currency that members may have a wallet in; may be repeated.")
@click.option("--locale", help="How statements on paper write amounts and times, for instance bs_BA.")
@click.option("--name", help="The name people see. Default: the slug.")
@click.option("--schema-name", help="Default: SLUG_schema.")
@json_option
def main(
    *,
    slug: str,
    currency: str,
    also: tuple[str, ...],
    locale: str | None,
    name: str | None,
    schema_name: str | None,
    as_json: bool,
) -> None:
    told: dict[str, Any] = {"currency": currency}
    if also:
        told["currencies"] = list(dict.fromkeys((currency, *also)))
    if locale is not None:
        told["locale"] = locale
    try:
        told = new_settings(told)
    except Invalid as error:
        stop(str(error), BAD_ARGUMENTS)
    settings = settings_or_exit()
    try:
        tenant = provision(
            admin_engine(admin_url_or_exit(settings)),
            MIGRATIONS,
            slug=slug,
            name=name or slug,
            settings=told,
            tenant_secret=settings.tenant_secret,
            schema_name=schema_name,
            reserved_slugs=RESERVED_SLUGS,
        )
    except NameRefused as error:
        stop(str(error), BAD_ARGUMENTS)
    except ProvisioningError as error:
        stop(str(error), FAILED)
    if as_json:
        show_json(asdict(tenant))
    else:
        print(f"Tenant {tenant.slug} is ready: schema {tenant.schema_name}, login {tenant.role_name}, {currency}.")


if __name__ == "__main__":
    main()
