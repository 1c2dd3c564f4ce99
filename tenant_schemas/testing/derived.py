"""A template that has more than the first one: tenants, members, money. A test takes a copy of it, and need not make
all that itself.

Roles belong to the whole server, and the names of the added tenants' roles would be taken for all other tests. So they
are parked, under other names and outside the group of tenants, while no test has a copy. A test that drops such a role
can't use a copy: rights in the template keep PostgreSQL from dropping it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from tenant_schemas.roles import set_tenant_login
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.databases import Database, administering, copy_of, run_on

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class _Role:
    """An added tenant's role. It keeps its oid, to which the rights in the template are bound, whatever its name is."""

    oid: int
    tenant: Tenant
    state: Any


class DerivedTemplate(Generic[Made]):
    """`prepare` adds to a copy of the template. `made` is what it returned."""

    def __init__(self, template: Database, prepare: Callable[[Database], Made]) -> None:
        self._template, self._prepare = template, prepare
        self._stack = ExitStack()
        self._roles: list[_Role] = []
        self._derived: tuple[Database, Made] | None = None

    @property
    def made(self) -> Made:
        if self._derived is None:
            raise RuntimeError("Nothing is prepared before the first copy is taken.")
        return self._derived[1]

    @contextmanager
    def copy(self) -> Iterator[Database]:
        """A copy, dropped afterwards as those of `copy_of` are. There is one at a time: all have the same roles."""
        with copy_of(self._ready()[0]) as copy:
            try:
                yield copy
            finally:
                copy.close()
                self._park()

    def close(self) -> None:
        """Drop the template with its roles."""
        with administering(self._template.server_url) as server:
            for role in self._roles:
                _rename(server, role, role.tenant.role_name)
        self._stack.close()
        self._roles, self._derived = [], None

    def _ready(self) -> tuple[Database, Made]:
        """The template, with its roles in place. A test may have changed them for good: then it is made anew."""
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

    def _unpark(self) -> bool:
        """Give the roles back what they had. Returns whether that is all as it was."""
        with administering(self._template.server_url) as server:
            for role in self._roles:
                if not _rename(server, role, role.tenant.role_name):
                    return False
                self._change_memberships(server, "GRANT {} TO {}", role.tenant.role_name)
                run_on(server, "ALTER ROLE {} LOGIN", role.tenant.role_name)
                set_tenant_login(server, role.tenant, self._template.password_of(role.tenant))
            return all(_state_of(server, role.oid) == role.state for role in self._roles)

    def _change_memberships(self, server: sa.Connection, statement: str, role_name: str) -> None:
        """That in the tenants' group, and the pool's in the role; as the migrator, who gave both."""
        roles = self._template.roles
        run_on(server, "SET SESSION AUTHORIZATION {}", roles.migrator)
        try:
            run_on(server, statement, roles.tenants, role_name)
            run_on(server, statement, role_name, roles.pool)
        finally:
            run_on(server, "RESET SESSION AUTHORIZATION")


def _rename(server: sa.Connection, role: _Role, name: str) -> bool:
    """Returns whether the role is still there."""
    query = "SELECT rolname FROM pg_roles WHERE oid = %s"
    current = server.exec_driver_sql(query, (role.oid,)).scalar_one_or_none()
    if current not in {None, name}:
        run_on(server, "ALTER ROLE {} RENAME TO {}", str(current), name)
    return current is not None


def _state_of(server: sa.Connection, oid: int) -> Any:
    """All that PostgreSQL knows of a role but its password."""
    query = """
        SELECT (SELECT to_jsonb(r) - 'rolpassword' FROM pg_roles r WHERE r.oid = %(oid)s),
            (SELECT jsonb_agg(to_jsonb(m) - 'oid' ORDER BY m.roleid, m.member, m.grantor) FROM pg_auth_members m
                WHERE %(oid)s IN (m.roleid, m.member)),
            (SELECT jsonb_agg(s.setconfig) FROM pg_db_role_setting s WHERE s.setrole = %(oid)s AND s.setdatabase = 0)"""
    return tuple(server.exec_driver_sql(query, {"oid": oid}).one())
