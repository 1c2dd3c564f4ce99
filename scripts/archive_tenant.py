"""Archive a tenant: from its next request on, the service answers its auditors only, and they can only read.

No data is deleted. `unarchive_tenant` makes the tenant active again, `drop_tenant` deletes it.

Example:
    python -m scripts.archive_tenant km

Exit codes: 0 the tenant is archived; 1 it could not be archived, or is archived already; 2 bad arguments, or there is
no tenant SLUG. With 1 and 2 nothing has changed.
"""

import rich_click as click

from scripts.support.script import Script
from scripts.support.status_change import change_status
from tenant_schemas.lifecycle.archive import archive


@click.command(cls=Script, help=__doc__)
@click.argument("slug")
def main(slug: str) -> None:
    change_status(slug, archive, "tenant.archive", needs_log=False)
    print(f"Tenant {slug} is archived.")


if __name__ == "__main__":
    main()
