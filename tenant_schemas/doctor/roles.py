"""The roles: each has exactly its attributes, memberships and defaults."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Row

from tenant_schemas.doctor.finding import Finding, Installation, error, warning
from tenant_schemas.roles import HAS_MEMBERSHIP_OPTIONS

_RUN_CREATE_ROLES = "Run `python -m scripts.create_roles` again."
_RESET_LOGIN = "Run `python -m scripts.reset_tenant_login {}`."
_REPAIR = "Run `python -m scripts.repair_tenant {}`."
_WITH_URL = "Run `python -m scripts.create_roles` again, with the URL of this login in the settings."
# Their names in ALTER ROLE. Every role except the pool has INHERIT.
_ATTRIBUTES = {
    "rolcanlogin": "LOGIN",
    "rolsuper": "SUPERUSER",
    "rolcreaterole": "CREATEROLE",
    "rolcreatedb": "CREATEDB",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
    "rolinherit": "INHERIT",
}


def check(installation: Installation) -> Iterator[Finding]:
    yield from _check_attributes(installation)
    yield from _check_memberships(installation)
    yield from _check_administrators(installation)
    yield from _check_defaults(installation)
    yield from _check_defaults_of_all(installation)
    yield from _check_logins(installation)
    yield from _check_other_logins(installation)
    if installation.is_superuser:
        yield from _check_passwords(installation)


def _expected_attributes(installation: Installation) -> dict[str, set[str]]:
    roles = installation.roles
    return {
        roles.owner: {"INHERIT"},
        roles.migrator: {"LOGIN", "CREATEROLE", "INHERIT"},
        roles.app: {"LOGIN", "INHERIT"},
        roles.backup: {"LOGIN", "BYPASSRLS", "INHERIT"},
        roles.relay: {"LOGIN", "INHERIT"},
        roles.tenants: {"INHERIT"},
        roles.pool: {"LOGIN"} if installation.shared_logins else set(),
    } | {name: {"LOGIN", "INHERIT"} for name in installation.tenant_roles}


def _check_attributes(installation: Installation) -> Iterator[Finding]:
    expected = _expected_attributes(installation)
    query = f"SELECT rolname, {', '.join(_ATTRIBUTES)} FROM pg_roles WHERE rolname = ANY(%(names)s)"  # noqa: S608
    found = {row.rolname: _attributes(row) for row in installation.rows(query, names=list(expected))}
    for name, wanted in expected.items():
        if name not in found:
            if name != installation.roles.pool or installation.shared_logins:
                slug = installation.slugs.get(name)
                remedy = _REPAIR.format(slug) if slug else _RUN_CREATE_ROLES
                yield error("role_missing", f"role {name}", "it does not exist", remedy)
            continue
        for attribute in sorted(found[name] - wanted):
            what = f"it has the attribute {attribute} and must not"
            yield error("role_attribute", f"role {name}", what, f"ALTER ROLE {name} NO{attribute};")
        for attribute in sorted(wanted - found[name]):
            what = f"it lacks the attribute {attribute}"
            yield error("role_attribute", f"role {name}", what, f"ALTER ROLE {name} {attribute};")


def _attributes(row: Row[Any]) -> set[str]:
    return {word for column, word in _ATTRIBUTES.items() if getattr(row, column)}


def _check_memberships(installation: Installation) -> Iterator[Finding]:
    """From PostgreSQL 16 on each membership has its own options: the migrator administers the logins that it created
    and may not SET ROLE to them. Before 16, only the pool's attribute NOINHERIT says that it inherits nothing.
    """
    inherits, may_set_role = (
        ("m.inherit_option", "m.set_option")
        if installation.version >= HAS_MEMBERSHIP_OPTIONS
        else ("r.rolname <> %(pool)s", "true")
    )
    query = f"""
        SELECT r.rolname AS member, g.rolname AS role, bool_or({inherits}), bool_or({may_set_role}),
            array_agg(m.grantor::regrole::text ORDER BY 1)
        FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
        WHERE r.rolname = ANY(%(names)s) OR g.rolname = ANY(%(names)s) GROUP BY 1, 2"""  # noqa: S608
    names = list(_expected_attributes(installation))
    rows = installation.rows(query, names=names, pool=installation.roles.pool)
    grantors = {(row[0], row[1]): row[4] for row in rows}
    found = {tuple(row[:4]) for row in rows}
    wanted = _expected_memberships(installation)
    for member, role, inherits, may_set_role in sorted(found - wanted - _allowed_memberships(installation)):
        kind = "inherits its privileges" if inherits else "may SET ROLE to it" if may_set_role else "administers it"
        what = f"unexpected membership: {member} {kind}"
        is_managed = member == installation.roles.migrator and role in installation.tenant_roles
        by_hand = _revocations(installation, f"REVOKE {role} FROM {member}", grantors[member, role])
        remedy = _RUN_CREATE_ROLES if is_managed else by_hand
        yield error("membership", f"role {role}", what, remedy)
    for member, role, *_ in sorted(wanted - found):
        slug = installation.slugs.get(member)
        remedy = _REPAIR.format(slug) if slug else _RUN_CREATE_ROLES
        yield error("membership", f"role {role}", f"{member} is not a member, or has other options", remedy)


Membership = tuple[str, str, bool, bool]


def _expected_memberships(installation: Installation) -> set[Membership]:
    roles = installation.roles
    expected = {
        (roles.migrator, roles.owner, True, True),
        (roles.migrator, roles.tenants, True, True),
        (roles.migrator, "pg_read_all_stats", True, True),
        (roles.backup, "pg_read_all_data", True, True),
        (roles.backup, "pg_read_all_stats", True, True),
        *((name, roles.tenants, True, True) for name in installation.tenant_roles),
    }
    if installation.shared_logins:
        expected |= {(roles.pool, name, False, True) for name in installation.tenant_roles}
    return expected


def _allowed_memberships(installation: Installation) -> set[Membership]:
    """Before 16, an ADMIN OPTION is a membership with all rights."""
    has_options = installation.version >= HAS_MEMBERSHIP_OPTIONS
    return {
        (installation.roles.migrator, name, not has_options, not has_options)
        for name in (*installation.tenant_roles, installation.roles.pool)
    }


def _check_administrators(installation: Installation) -> Iterator[Finding]:
    """A role with ADMIN OPTION can add members. Only the migrator may have it, for tenants' roles and the pool."""
    yield from _check_migrator(installation)
    query = """
        SELECT r.rolname, g.rolname, array_agg(m.grantor::regrole::text ORDER BY 1) FROM pg_auth_members m
        JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
        WHERE m.admin_option AND r.rolname = ANY(%(names)s)
            AND NOT (r.rolname = %(migrator)s AND g.rolname = ANY(%(managed)s))
        GROUP BY 1, 2 ORDER BY 1, 2"""
    roles = installation.roles
    names, managed = list(_expected_attributes(installation)), [roles.tenants, roles.pool, *installation.tenant_roles]
    for member, role, grantors in installation.rows(query, names=names, migrator=roles.migrator, managed=managed):
        what = f"{member} may add members to it (ADMIN OPTION)"
        remedy = _revocations(installation, f"REVOKE ADMIN OPTION FOR {role} FROM {member}", grantors)
        yield error("membership", f"role {role}", what, remedy)


def _revocations(installation: Installation, revocation: str, grantors: list[str]) -> str:
    """From 16 on a membership has a grantor, and there may be several of one member."""
    if installation.version < HAS_MEMBERSHIP_OPTIONS:
        return f"{revocation};"
    return " ".join(f"{revocation} GRANTED BY {grantor} CASCADE;" for grantor in dict.fromkeys(grantors))


def _check_migrator(installation: Installation) -> Iterator[Finding]:
    """The migrator administers the tenants' roles and their group. Before 16 CREATEROLE is enough for that, but an
    upgrade brings the ADMIN OPTION only if it was granted.
    """
    query = """
        SELECT r.rolname FROM pg_roles r WHERE r.rolname = ANY(%(managed)s) AND NOT EXISTS (
            SELECT FROM pg_auth_members m
            WHERE m.roleid = r.oid AND m.member = to_regrole(%(migrator)s) AND m.admin_option)
        ORDER BY 1"""
    roles = installation.roles
    managed = [roles.tenants, *installation.tenant_roles]
    for (role,) in installation.rows(query, managed=managed, migrator=roles.migrator):
        what = f"{roles.migrator} has no ADMIN OPTION: it can't set the password, rename, drop or restore the role"
        if installation.version >= HAS_MEMBERSHIP_OPTIONS:
            yield error("administration", f"role {role}", what, _RUN_CREATE_ROLES)
        else:
            what = f"{roles.migrator} has no ADMIN OPTION: after an upgrade to PostgreSQL 16 it can't change the role"
            yield warning("administration", f"role {role}", what, _RUN_CREATE_ROLES)


def _check_defaults(installation: Installation) -> Iterator[Finding]:
    """A role can change its own defaults, and so can SQL injected into its connection."""
    query = """
        SELECT r.rolname, d.datname, quote_ident(d.datname) AS quoted, setting, t.slug,
            s.setdatabase = 0 AND setting = 'search_path=' || coalesce(quote_ident(t.schema_name), 'pg_catalog')
                || ', pg_temp' AS is_its_own
        FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole CROSS JOIN unnest(s.setconfig) AS setting
        LEFT JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN shared.tenants t ON t.role_name = r.rolname
        WHERE r.rolname = ANY(%(names)s) AND (s.setdatabase = 0 OR d.datname = current_database())"""
    names = set(_expected_attributes(installation))
    found = installation.rows(query, names=list(names))
    for row in found:
        if not row.is_its_own:
            what = f"its sessions start with {row.setting}" + (f" in database {row.datname}" if row.datname else "")
            database = f" IN DATABASE {row.quoted}" if row.datname else ""
            by_hand = f"ALTER ROLE {row.rolname}{database} RESET ALL; {_RUN_CREATE_ROLES}"
            remedy = _RESET_LOGIN.format(row.slug) if row.slug else by_hand
            yield error("role_default", f"role {row.rolname}", what, remedy)
    settled = {row.rolname for row in found if row.is_its_own}
    may_log_in = {name for name, attributes in _expected_attributes(installation).items() if "LOGIN" in attributes}
    for name in sorted(may_log_in - settled):
        slug = installation.slugs.get(name)
        remedy = _REPAIR.format(slug) if slug else _RUN_CREATE_ROLES
        yield error("role_default", f"role {name}", "its sessions do not start with its own search_path", remedy)


def _check_defaults_of_all(installation: Installation) -> Iterator[Finding]:
    """Defaults of all roles: the database's time zone and nothing else. Such a default could also disable triggers."""
    query = """
        SELECT s.setdatabase <> 0 AS is_databases, setting
        FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS setting
        WHERE s.setrole = 0 AND (s.setdatabase = 0
            OR s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
    name = installation.connection.exec_driver_sql("SELECT quote_ident(current_database())").scalar_one()
    found = {tuple(row) for row in installation.rows(query)}
    wanted = {(True, "TimeZone=UTC")}
    for is_databases, setting in sorted(found - wanted):
        whose, sql = (f"database {name}", f"DATABASE {name}") if is_databases else ("every role", "ROLE ALL")
        remedy = f"ALTER {sql} RESET {setting.partition('=')[0]}; {_RUN_CREATE_ROLES}"
        yield error("role_default", whose, f"every session starts with {setting}", remedy)
    if not found >= wanted:
        yield error("role_default", f"database {name}", "sessions do not start in UTC", _RUN_CREATE_ROLES)


def _check_logins(installation: Installation) -> Iterator[Finding]:
    """Logins that exist but can not be used."""
    query = """
        SELECT rolname, rolvaliduntil <= now() AS is_expired, rolconnlimit = 0 AS is_full FROM pg_roles
        WHERE rolname = ANY(%(names)s) AND (rolvaliduntil <= now() OR rolconnlimit = 0) ORDER BY 1"""
    for name, is_expired, is_full in installation.rows(query, names=list(_expected_attributes(installation))):
        if is_expired:
            remedy = f"ALTER ROLE {name} VALID UNTIL 'infinity';"
            yield error("login", f"role {name}", "its password has expired", remedy)
        if is_full:
            yield error("login", f"role {name}", "its connection limit is 0", f"ALTER ROLE {name} CONNECTION LIMIT -1;")


def _check_other_logins(installation: Installation) -> Iterator[Finding]:
    """Other logins that can read or change everything here, except the server's first superuser."""
    query = """
        SELECT rolname, quote_ident(rolname), concat_ws(', ', CASE WHEN rolsuper THEN 'SUPERUSER' END,
            CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
            CASE WHEN pg_has_role(oid, 'pg_read_all_data', 'MEMBER') THEN 'pg_read_all_data' END,
            CASE WHEN pg_has_role(oid, 'pg_write_all_data', 'MEMBER') THEN 'pg_write_all_data' END) AS powers
        FROM pg_roles WHERE rolcanlogin AND oid <> 10 AND rolname <> ALL(%(names)s) ORDER BY 1"""
    for name, quoted, powers in installation.rows(query, names=list(_expected_attributes(installation))):
        if powers:
            what = f"it does not belong to this installation and has {powers}"
            yield warning("powerful_login", f"role {name}", what, f"If it is not needed: ALTER ROLE {quoted} NOLOGIN;")


def _check_passwords(installation: Installation) -> Iterator[Finding]:
    query = r"""
        SELECT rolname, rolpassword IS NULL FROM pg_authid WHERE rolname = ANY(%(names)s)
            AND (rolpassword !~ '^SCRAM-SHA-256\$' OR rolpassword IS NULL AND rolname = ANY(%(required)s)) ORDER BY 1"""
    # The operator decides how the migrator, the backup and the relay role log in.
    required = [
        installation.roles.app,
        *installation.tenant_roles,
        *([installation.roles.pool] if installation.shared_logins else ()),
    ]
    names = list(_expected_attributes(installation))
    for name, is_missing in installation.rows(query, names=names, required=required):
        what = "it has no password" if is_missing else "its password is not stored as a SCRAM verifier"
        slug = installation.slugs.get(name)
        remedy = _RESET_LOGIN.format(slug) if slug else _WITH_URL
        yield error("password", f"role {name}", what, remedy)
