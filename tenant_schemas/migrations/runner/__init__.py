"""Takes many tenants along the history together: planned, in parallel, in waves, recorded, and safe to interrupt."""

from tenant_schemas.migrations.runner.plan import MigrateOptions, Plan, TenantMigration, make_plan
from tenant_schemas.migrations.runner.runner import migrate

__all__ = ["MigrateOptions", "Plan", "TenantMigration", "make_plan", "migrate"]
