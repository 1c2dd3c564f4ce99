"""Suspend a tenant: from its next request on, the service answers none of its members, nor its auditors.

Nothing is deleted, and nothing new is posted. What has happened is still sent to webhooks and brokers. `resume_tenant`
ends it. Suspend a tenant while its ledger may be wrong and you do not know why, and before a restore that finds its
tables in use.

Example:
    python -m scripts.suspend_tenant km

Exit codes: 0 the tenant is suspended; 1 it could not be suspended, or is not active; 2 bad arguments, or there is no
tenant SLUG. With 1 and 2 nothing has changed.
"""

import rich_click as click

from scripts.support.script import Script
from scripts.support.status_change import change_status
from tenant_schemas.lifecycle.archive import suspend


@click.command(cls=Script, help=__doc__)
@click.argument("slug")
def main(slug: str) -> None:
    change_status(slug, suspend, "tenant.suspend", needs_log=False)
    print(f"Tenant {slug} is suspended.")


if __name__ == "__main__":
    main()
