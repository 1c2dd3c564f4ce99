"""Let a tenant's members have wallets in more currencies, or set the locale of its statements. Takes effect on the next
request. A currency is never taken away, since wallets may be kept in it, and the main one never changes.
"""

from collections.abc import Sequence
from typing import Any

import rich_click as click
from babel import Locale, UnknownLocaleError

from app.db import admin_engine
from app.money import fraction_digits
from scripts.console import BAD_ARGUMENTS, admin_url_or_exit, settings_or_exit, stop
from tenant_schemas.errors import TenantNotFound
from tenant_schemas.registry import change_settings, get_tenant, lock_tenant


@click.command(help=__doc__)
@click.argument("slug")
@click.option("--also", multiple=True, help="A currency to allow, as an ISO 4217 code; may be repeated.")
@click.option("--locale", help="For instance bs_BA.")
def main(slug: str, also: tuple[str, ...], locale: str | None) -> None:
    if not also and locale is None:
        stop("Nothing to change: give --also, --locale or both.", BAD_ARGUMENTS)
    tenant_settings(also, locale)
    with admin_engine(admin_url_or_exit(settings_or_exit())).begin() as connection:
        try:
            tenant = lock_tenant(connection, get_tenant(connection, slug).id)
        except TenantNotFound as error:
            stop(str(error), BAD_ARGUMENTS)
        known = [tenant.settings["currency"], *tenant.settings.get("currencies", ())]
        changed = tenant_settings((*known, *also), locale)
        change_settings(connection, tenant.id, changed)
    print(f"{slug}: " + ", ".join(f"{name} {value}" for name, value in sorted(changed.items())))


def tenant_settings(currencies: Sequence[str], locale: str | None) -> dict[str, Any]:
    """Settings of a tenant, checked before anything is made of them; exits 2 if they are wrong."""
    for currency in currencies:
        try:
            fraction_digits(currency)
        except ValueError as error:
            stop(f"{currency}: {error}", BAD_ARGUMENTS)
    told: dict[str, Any] = {"currencies": list(dict.fromkeys(currencies))} if len(currencies) > 1 else {}
    return told if locale is None else told | {"locale": _known_locale(locale)}


def _known_locale(locale: str) -> str:
    locale = locale.replace("-", "_")
    try:
        Locale.parse(locale)
    except (UnknownLocaleError, ValueError):
        stop(f"--locale: there is no locale {locale!r}; write it like bs_BA.", BAD_ARGUMENTS)
    return locale


if __name__ == "__main__":
    main()
