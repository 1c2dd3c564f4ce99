"""Make a suspended tenant active again: the service answers its members from its next request on.

Example:
    python -m scripts.resume_tenant km

Exit codes: 0 the tenant is active; 1 it could not be made active, or is not suspended; 2 bad arguments, or there is no
tenant SLUG. With 1 and 2 nothing has changed.
"""

import rich_click as click

from scripts.support.script import Script
from scripts.support.status_change import change_status
from tenant_schemas.lifecycle.archive import resume


@click.command(cls=Script, help=__doc__)
@click.argument("slug")
def main(slug: str) -> None:
    change_status(slug, resume, "tenant.resume")
    print(f"Tenant {slug} is active again.")


if __name__ == "__main__":
    main()
