"""The baseline of the fleet benchmark: one psql process that runs a file with the statements that every schema needs.

It runs SQL alone: no plan, no journal, no retries. The engine does all of these too; it makes up for them because its
SQL for the same change is shorter.
"""

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from scripts.benchmarks.measurement import BenchmarkFailed
from scripts.benchmarks.pgbench import login_environment
from tenant_schemas.embedded import binary
from tenant_schemas.migrations.render import Step
from tenant_schemas.migrations.replay import parts_of
from tenant_schemas.roles import TENANT_ROLE_SETTING, ServiceRoles
from tenant_schemas.search_path import migration_message, set_role_default
from tenant_schemas.tenant import Tenant

ASYNCHRONOUS_COMMIT = "-c synchronous_commit=off"


@dataclass(frozen=True, slots=True)
class PsqlBaseline:
    """A database that only psql changes, logged in as the migrator."""

    url: str
    roles: ServiceRoles

    def provision(self, tenants: Iterable[Tenant], steps: Sequence[Step]) -> None:
        """Provision the tenants, each in a db transaction."""
        self._run(self._provision_sql(tenant, steps) for tenant in tenants)

    def migrate(self, tenants: Iterable[Tenant], steps: Sequence[Step], *, waits_for_disk: bool = True) -> None:
        """Take the steps in each tenant, each tenant in a db transaction. With `waits_for_disk` each commit is on disk
        before the next begins.
        """
        row = sql.SQL("UPDATE shared.tenants SET revision = {} WHERE id = {};")
        texts = (
            f"BEGIN;{self._bind_sql(tenant)}{_text_of(steps, tenant)}"
            f"{row.format(str(steps[-1].after), str(tenant.id)).as_string()}COMMIT;"
            for tenant in tenants
        )
        self._run(texts, waits_for_disk=waits_for_disk)

    def _run(self, texts: Iterable[str], *, waits_for_disk: bool = True) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.writelines(f"{text}\n" for text in texts)
            file.flush()
            run_psql(self.url, f"--file={file.name}", options="" if waits_for_disk else ASYNCHRONOUS_COMMIT)

    def _bind_sql(self, tenant: Tenant) -> str:
        text = sql.SQL("SET LOCAL ROLE {}; SET LOCAL {} TO {};").format(
            sql.Identifier(self.roles.owner), sql.SQL(TENANT_ROLE_SETTING), sql.Literal(tenant.role_name)
        )
        return text.as_string() + migration_message(tenant.schema_name)

    def _provision_sql(self, tenant: Tenant, steps: Sequence[Step]) -> str:
        role, schema = sql.Identifier(tenant.role_name), sql.Identifier(tenant.schema_name)
        login = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {};")
        row = sql.SQL(
            "INSERT INTO shared.tenants (id, slug, schema_name, role_name, name, status, login_epoch, revision,"
            " settings) VALUES ({});"
        )
        values = (tenant.id, tenant.slug, tenant.schema_name, tenant.role_name, tenant.name, tenant.status, 1)
        row_values = (*map(str, values), str(steps[-1].after), '{"currency": "EUR"}')
        create_schema = sql.SQL("CREATE SCHEMA {}; GRANT USAGE ON SCHEMA {} TO {};").format(schema, schema, role)
        return (
            "BEGIN;"
            # Here PostgreSQL computes the verifier of the password; the engine sends a computed one.
            + login.format(role, tenant.slug, sql.Identifier(self.roles.tenants)).as_string()
            + f"{set_role_default(tenant.role_name, tenant.schema_name)};"
            + self._bind_sql(tenant)
            + create_schema.as_string()
            + migration_message(tenant.schema_name)
            + _text_of(steps, tenant)
            + row.format(sql.SQL(", ").join(map(sql.Literal, row_values))).as_string()
            + "COMMIT;"
        )


def _text_of(steps: Sequence[Step], tenant: Tenant) -> str:
    return "".join(part.text for part in parts_of(steps, tenant.schema_name))


def run_psql(url: str, *arguments: str, options: str = "") -> None:
    """Run psql. Raises BenchmarkFailed if it fails."""
    command = [str(binary("psql")), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", *arguments]
    done = subprocess.run(
        command,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=login_environment(url) | {"PGOPTIONS": options},
    )
    if done.returncode:
        raise BenchmarkFailed(f"psql failed:\n{done.stderr}")


def copy_out(url: str, schema_name: str, tables: Sequence[str], folder: Path) -> None:
    """Write the tables to compressed files, as of one snapshot."""
    lines = ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"]
    for table in tables:
        name = sql.Identifier(schema_name, table).as_string()
        lines.append(f"\\copy {name} TO PROGRAM 'gzip -1 > {folder / table}.gz'")
    script = folder / "copy.sql"
    script.write_text("\n".join([*lines, "COMMIT;"]))
    run_psql(url, f"--file={script}")
