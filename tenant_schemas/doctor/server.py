"""The server's settings: they keep committed data, keep secrets out of its log, and keep other logins out."""

from collections.abc import Iterator, Mapping

from sqlalchemy import Connection

from tenant_schemas.doctor.finding import Finding, Installation, error, warning

OLDEST, NEWEST = 15, 18
_CONFIGURE = "Set {} in postgresql.conf and reload the server."
_RESTART = "Set {} in postgresql.conf and restart the server."
# Setting, forbidden value, consequence. Each of them can lose or corrupt money.
_UNSAFE_SETTINGS = (
    ("fsync", "off", "a crash of the machine may destroy the database"),
    ("full_page_writes", "off", "a crash of the machine may leave torn pages in the database"),
    ("synchronous_commit", "off", "a confirmed posting may be lost in a crash"),
    ("zero_damaged_pages", "on", "damaged pages are replaced by empty ones without an error"),
    ("ignore_checksum_failure", "on", "damaged pages are read without an error"),
    ("allow_system_table_mods", "on", "superusers can change the catalogue itself"),
    ("lo_compat_privileges", "on", "every login can read and write all large objects"),
)


def check(installation: Installation) -> Iterator[Finding]:
    settings = {name: str(value) for name, value in installation.rows("SELECT name, setting FROM pg_settings")}
    yield from check_settings(settings)
    yield from _check_other_databases(installation)
    if installation.is_superuser:
        yield from _check_hba(installation)


def check_settings(settings: Mapping[str, str]) -> Iterator[Finding]:
    """Check the settings alone. A setting that this server version does not have is skipped."""
    major = int(settings["server_version_num"]) // 10_000
    if not OLDEST <= major <= NEWEST:
        remedy = f"Use PostgreSQL {OLDEST} to {NEWEST}."
        yield error("version", "the server", f"the service is not tested with PostgreSQL {major}", remedy)
    for name, value, consequence in _UNSAFE_SETTINGS:
        if settings.get(name) == value:
            wanted = f"{name} = {'on' if value == 'off' else 'off'}"
            yield error(name, "the server", f"{name} is {value}: {consequence}", _CONFIGURE.format(wanted))
    yield from _check_recommended_settings(settings)


def _check_recommended_settings(settings: Mapping[str, str]) -> Iterator[Finding]:
    if settings.get("data_checksums") == "off":
        remedy = "Stop the server and run pg_checksums --enable."
        yield warning("data_checksums", "the server", "wrong data from a disk is not detected", remedy)
    if settings.get("password_encryption") != "scram-sha-256":
        what = "a password that is set by hand is stored as an MD5 hash"
        remedy = _CONFIGURE.format("password_encryption = scram-sha-256")
        yield warning("password_encryption", "the server", what, remedy)
    if settings.get("log_statement") in ("all", "mod"):
        what = "the server logs statements with their parameters, including addresses and password hashes"
        yield warning("log_statement", "the server", what, _CONFIGURE.format("log_statement = ddl"))
    if int(settings.get("max_prepared_transactions", 0)) > 0:
        what = "any login can leave a prepared transaction behind: its locks stay and vacuum is blocked"
        remedy = _RESTART.format("max_prepared_transactions = 0")
        yield warning("max_prepared_transactions", "the server", what, remedy)
    listens = settings.get("listen_addresses", "")
    if settings.get("ssl") == "off" and not set(listens.replace(" ", "").split(",")) <= {
        "",
        "localhost",
        "127.0.0.1",
        "::1",
    }:
        what = f"it listens on {listens} without TLS"
        yield warning("ssl", "the server", what, _RESTART.format("ssl = on or another listen_addresses"))


def check_capacity(installation: Installation, wanted: int) -> Iterator[Finding]:
    """Whether the server has room for all connections that one process of the service may open."""
    free = free_connections(installation.connection)
    if wanted > free:
        what = f"one process of the service may open {wanted} connections; the server allows {free}"
        remedy = "Raise the server's max_connections, or lower the service's MAX_CONNECTIONS."
        yield warning("max_connections", "the server", what, remedy)


def free_connections(connection: Connection) -> int:
    """How many connections the server allows to logins that are no superusers."""
    query = """
        SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END) FROM pg_settings
        WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"""
    return int(connection.exec_driver_sql(query).scalar_one())


def _check_other_databases(installation: Installation) -> Iterator[Finding]:
    query = """
        SELECT d.datname FROM pg_database d
        WHERE d.datallowconn AND d.datname <> current_database() AND EXISTS (
            SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
            WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT')
        ORDER BY 1"""
    for (name,) in installation.rows(query):
        what = "every login may connect to it and create temporary tables there"
        remedy = f"If no other application needs that: REVOKE CONNECT, TEMP ON DATABASE {name} FROM PUBLIC;"
        yield warning("other_database", f"database {name}", what, remedy)


def _check_hba(installation: Installation) -> Iterator[Finding]:
    query = """
        SELECT line_number, auth_method, error FROM pg_hba_file_rules
        WHERE auth_method IN ('trust', 'password') OR error IS NOT NULL ORDER BY 1"""
    for line, method, fault in installation.rows(query):
        what = f"line {line}: {fault or f'authentication method {method}'}"
        yield warning("pg_hba", "pg_hba.conf", what, "Use scram-sha-256 there and reload the server.")
