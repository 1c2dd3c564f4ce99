"""The floor under the fleet's work: psql, one process, and a file with the very statements that a schema must get.

Nothing but SQL: no plan, no records, no retries. What the engine does beside must cost no more than its shorter way of
saying the same saves.
"""

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from scripts.benchmarks.pgbench import login_to
from scripts.benchmarks.slices import BenchmarkFailed
from tenant_schemas.embedded import binary
from tenant_schemas.migrations.render import Step
from tenant_schemas.migrations.replay import registry_update_text, steps_text
from tenant_schemas.roles import TENANT_ROLE_SETTING, ServiceRoles
from tenant_schemas.search_path import migration_message, set_role_default
from tenant_schemas.tenant import Tenant

NO_WAITING = "-c synchronous_commit=off"


@dataclass(frozen=True, slots=True)
class Floor:
    """A database that psql alone works in, as the migrator."""

    url: str
    roles: ServiceRoles

    def provision(self, tenants: Iterable[Tenant], steps: Sequence[Step]) -> None:
        """Make them, a db transaction each."""
        self._run(self._made(tenant, steps) for tenant in tenants)

    def migrate(self, tenants: Iterable[Tenant], steps: Sequence[Step], *, waits: bool = True) -> None:
        """Take them these steps, a db transaction each. One that `waits` is on disk before the next begins."""
        texts = (
            f"BEGIN;{self._opened(tenant)}{steps_text(steps, tenant.schema_name)}"
            f"{registry_update_text(tenant, str(steps[-1].after))}COMMIT;"
            for tenant in tenants
        )
        self._run(texts, waits=waits)

    def _run(self, texts: Iterable[str], *, waits: bool = True) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.writelines(f"{text}\n" for text in texts)
            file.flush()
            run_psql(self.url, f"--file={file.name}", options="" if waits else NO_WAITING)

    def _opened(self, tenant: Tenant) -> str:
        text = sql.SQL("SET LOCAL ROLE {}; SET LOCAL {} TO {};").format(
            sql.Identifier(self.roles.owner), sql.SQL(TENANT_ROLE_SETTING), sql.Literal(tenant.role_name)
        )
        return text.as_string() + migration_message(tenant.schema_name)

    def _made(self, tenant: Tenant, steps: Sequence[Step]) -> str:
        role, schema = sql.Identifier(tenant.role_name), sql.Identifier(tenant.schema_name)
        login = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {};")
        row = sql.SQL(
            "INSERT INTO shared.tenants (id, slug, schema_name, role_name, name, status, login_epoch, revision,"
            " settings) VALUES ({});"
        )
        values = (tenant.id, tenant.slug, tenant.schema_name, tenant.role_name, tenant.name, tenant.status, 1)
        told = (*map(str, values), str(steps[-1].after), '{"currency": "EUR"}')
        made = sql.SQL("CREATE SCHEMA {}; GRANT USAGE ON SCHEMA {} TO {};").format(schema, schema, role)
        return (
            "BEGIN;"
            # PostgreSQL derives the verifier of the password here, as it does for whoever types this.
            + login.format(role, tenant.slug, sql.Identifier(self.roles.tenants)).as_string()
            + f"{set_role_default(tenant.role_name, tenant.schema_name)};"
            + self._opened(tenant)
            + made.as_string()
            + migration_message(tenant.schema_name)
            + steps_text(steps, tenant.schema_name)
            + row.format(sql.SQL(", ").join(map(sql.Literal, told))).as_string()
            + "COMMIT;"
        )


def run_psql(url: str, *arguments: str, options: str = "") -> None:
    """Run psql to its end. Raises BenchmarkFailed."""
    command = [str(binary("psql")), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", *arguments]
    done = subprocess.run(
        command,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=login_to(url) | {"PGOPTIONS": options},
    )
    if done.returncode:
        raise BenchmarkFailed(f"psql failed:\n{done.stderr}")


def copy_out(url: str, schema_name: str, tables: Sequence[str], folder: Path) -> None:
    """Write these tables into files as one snapshot sees them."""
    lines = ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"]
    for table in tables:
        name = sql.Identifier(schema_name, table).as_string()
        lines.append(f"\\copy {name} TO PROGRAM 'gzip -1 > {folder / table}.gz'")
    script = folder / "copy.sql"
    script.write_text("\n".join([*lines, "COMMIT;"]))
    run_psql(url, f"--file={script}")
