"""Migrates all schemas in one run: by a plan, in waves, with parallel workers, recorded, and safe to interrupt."""

from tenant_schemas.migrations.runner.plan import MigrateOptions, Plan, TenantMigration, make_plan
from tenant_schemas.migrations.runner.runner import migrate

__all__ = ["MigrateOptions", "Plan", "TenantMigration", "make_plan", "migrate"]
