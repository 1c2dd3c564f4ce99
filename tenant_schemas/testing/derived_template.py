"""A template with more content than the first one: tenants, members, money. A test copies it instead of creating all
that.

Roles belong to the whole server, so the names of the added tenants' roles would be taken in all other tests. While no
test has a copy, these roles are parked: renamed, outside the tenants' group, and without an administrator. A test that
drops such a role can't use a copy, because PostgreSQL keeps a role with privileges in the template.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from tenant_schemas.roles import HAS_MEMBERSHIP_OPTIONS, driver_of, grant_administration, set_tenant_login
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.databases import Database, administering, copy_of, run_on

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class _Role:
    """An added tenant's role. Its oid, to which the template's privileges refer, stays the same under any name."""

    oid: int
    tenant: Tenant
    state: Any


class DerivedTemplate(Generic[Made]):
    """`prepare` adds content to a copy of the template. `made` is its result."""

    def __init__(self, template: Database, prepare: Callable[[Database], Made]) -> None:
        self._template, self._prepare = template, prepare
        self._stack = ExitStack()
        self._roles: list[_Role] = []
        self._derived: tuple[Database, Made] | None = None

    @property
    def made(self) -> Made:
        if self._derived is None:
            raise RuntimeError("Take a copy first: nothing is prepared yet.")
        return self._derived[1]

    @contextmanager
    def copy(self) -> Iterator[Database]:
        """A copy, dropped afterwards as by `copy_of`. Only one exists at a time, because all copies use the
        same roles.
        """
        with copy_of(self._ready()[0]) as copy:
            try:
                yield copy
            finally:
                copy.close()
                self._park()

    def close(self) -> None:
        """Drop the template and its roles."""
        with administering(self._template.server_url) as server:
            for role in self._roles:
                _rename(server, role, role.tenant.role_name)
        self._stack.close()
        self._roles, self._derived = [], None

    def _ready(self) -> tuple[Database, Made]:
        """The template with its roles in place. It is made again if a test has changed them irreversibly."""
        if self._derived is None or not self._unpark():
            self.close()
            self._derived = self._make()
        return self._derived

    def _make(self) -> tuple[Database, Made]:
        database = self._stack.enter_context(copy_of(self._template))
        made = self._prepare(database)
        added = [tenant for tenant in database.tenants() if tenant.role_name not in database.first_roles]
        database.close()
        with administering(database.server_url) as server:
            for tenant in added:
                oid = server.exec_driver_sql("SELECT %s::regrole::oid::bigint", (tenant.role_name,)).scalar_one()
                self._roles.append(_Role(oid, tenant, _state_of(server, oid)))
        return replace(database, _open=[]), made

    def _park(self) -> None:
        with administering(self._template.server_url) as server:
            for role in self._roles:
                if _rename(server, role, f"parked_{role.oid}"):
                    self._change_memberships(server, "REVOKE {} FROM {}", f"parked_{role.oid}")
                    run_on(server, "REVOKE {} FROM {}", f"parked_{role.oid}", self._template.roles.migrator)

    def _unpark(self) -> bool:
        """Restore the roles. Returns whether they are as they were."""
        with administering(self._template.server_url) as server:
            for role in self._roles:
                if not _rename(server, role, role.tenant.role_name):
                    return False
                self._let_migrator_administer(server, role.tenant.role_name)
                self._change_memberships(server, "GRANT {} TO {}", role.tenant.role_name)
                run_on(server, "ALTER ROLE {} LOGIN", role.tenant.role_name)
                set_tenant_login(server, role.tenant, self._template.password_of(role.tenant))
            return all(_state_of(server, role.oid) == role.state for role in self._roles)

    def _let_migrator_administer(self, server: sa.Connection, role_name: str) -> None:
        """As it was when the migrator made the role: from 16 on PostgreSQL grants that itself."""
        migrator = self._template.roles.migrator
        if driver_of(server).info.server_version >= HAS_MEMBERSHIP_OPTIONS:
            grant_administration(server, self._template.roles, [role_name])
            return
        run_on(server, "SET SESSION AUTHORIZATION {}", migrator)
        try:
            grant_administration(server, self._template.roles, [role_name])
        finally:
            run_on(server, "RESET SESSION AUTHORIZATION")

    def _change_memberships(self, server: sa.Connection, statement: str, role_name: str) -> None:
        """Change the role's membership in the tenants' group and the pool's in the role; as the migrator, which granted
        both.
        """
        roles = self._template.roles
        run_on(server, "SET SESSION AUTHORIZATION {}", roles.migrator)
        try:
            run_on(server, statement, roles.tenants, role_name)
            run_on(server, statement, role_name, roles.pool)
        finally:
            run_on(server, "RESET SESSION AUTHORIZATION")


def _rename(server: sa.Connection, role: _Role, name: str) -> bool:
    """Rename a role. Returns whether it still exists."""
    query = "SELECT rolname FROM pg_roles WHERE oid = %s"
    current = server.exec_driver_sql(query, (role.oid,)).scalar_one_or_none()
    if current not in {None, name}:
        run_on(server, "ALTER ROLE {} RENAME TO {}", str(current), name)
    return current is not None


def _state_of(server: sa.Connection, oid: int) -> Any:
    """Everything that PostgreSQL stores about a role, except its password."""
    query = """
        SELECT (SELECT to_jsonb(r) - 'rolpassword' FROM pg_roles r WHERE r.oid = %(oid)s),
            (SELECT jsonb_agg(to_jsonb(m) - 'oid' ORDER BY m.roleid, m.member, m.grantor) FROM pg_auth_members m
                WHERE %(oid)s IN (m.roleid, m.member)),
            (SELECT jsonb_agg(s.setconfig) FROM pg_db_role_setting s WHERE s.setrole = %(oid)s AND s.setdatabase = 0)"""
    return tuple(server.exec_driver_sql(query, {"oid": oid}).one())
