"""Takes many tenants along the history together: planned, in parallel, in waves, recorded, and safe to interrupt."""

from tenant_schemas.fleet.plan import Plan, Wishes, Work, make_plan
from tenant_schemas.fleet.run import migrate

__all__ = ["Plan", "Wishes", "Work", "make_plan", "migrate"]
