"""The server's own settings: does it keep what it has promised to keep, and does it let strangers in?"""

from collections.abc import Iterator, Mapping

from tenant_schemas.doctor.finding import Finding, Installation, error, warning

OLDEST, NEWEST = 15, 18
_CONFIGURE = "Set {} in postgresql.conf and reload the server."
# What must not be so: setting, value, and what follows from it. All of it loses or corrupts money.
_FATAL = (
    ("fsync", "off", "a crash of the machine may destroy the database"),
    ("full_page_writes", "off", "a crash of the machine may leave torn pages in the database"),
    ("synchronous_commit", "off", "a posting that was answered may be lost in a crash"),
    ("zero_damaged_pages", "on", "damaged pages are emptied in silence"),
    ("ignore_checksum_failure", "on", "damaged pages are read as if they were good"),
    ("allow_system_table_mods", "on", "the catalogue itself may be changed"),
    ("lo_compat_privileges", "on", "large objects are everybody's"),
)


def check(installation: Installation) -> Iterator[Finding]:
    settings = {name: str(value) for name, value in installation.rows("SELECT name, setting FROM pg_settings")}
    yield from check_settings(settings)
    yield from _check_doors(installation)
    if installation.is_superuser:
        yield from _check_hba(installation)


def check_settings(settings: Mapping[str, str]) -> Iterator[Finding]:
    """What follows from the settings alone. One that the server does not know is passed over."""
    major = int(settings["server_version_num"]) // 10_000
    if not OLDEST <= major <= NEWEST:
        remedy = f"Use PostgreSQL {OLDEST} to {NEWEST}."
        yield error("version", "the server", f"PostgreSQL {major} was never tried", remedy)
    for name, value, consequence in _FATAL:
        if settings.get(name) == value:
            wanted = f"{name} = {'on' if value == 'off' else 'off'}"
            yield error(name, "the server", f"{name} is {value}: {consequence}", _CONFIGURE.format(wanted))
    yield from _check_habits(settings)


def _check_habits(settings: Mapping[str, str]) -> Iterator[Finding]:
    if settings.get("data_checksums") == "off":
        remedy = "Stop the server and run pg_checksums --enable."
        yield warning("data_checksums", "the server", "a disk that returns wrong data is not noticed", remedy)
    if settings.get("password_encryption") != "scram-sha-256":
        what = "a password that somebody sets by hand is stored as an MD5 hash"
        yield warning("password_encryption", "the server", what, _CONFIGURE.format("password_encryption"))
    if settings.get("log_statement") in ("all", "mod"):
        what = "the server's log repeats statements with their parameters, so with addresses and password hashes"
        yield warning("log_statement", "the server", what, _CONFIGURE.format("log_statement = ddl"))
    if int(settings.get("max_prepared_transactions", 0)) > 0:
        what = "any login may PREPARE a transaction and leave it: its locks stay, and nothing is vacuumed"
        remedy = _CONFIGURE.format("max_prepared_transactions = 0")
        yield warning("max_prepared_transactions", "the server", what, remedy)
    listens = settings.get("listen_addresses", "")
    if settings.get("ssl") == "off" and not set(listens.replace(" ", "").split(",")) <= {
        "",
        "localhost",
        "127.0.0.1",
        "::1",
    }:
        what = f"it listens on {listens} without TLS"
        yield warning("ssl", "the server", what, _CONFIGURE.format("ssl = on, or listen_addresses"))


def check_capacity(installation: Installation, wanted: int) -> Iterator[Finding]:
    """Can the server hold all connections that one process of the service may open?"""
    query = """
        SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END) FROM pg_settings
        WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"""
    free = int(installation.rows(query)[0][0])
    if wanted > free:
        what = f"one process may open {wanted} connections and the server has {free} to give"
        yield warning("max_connections", "the server", what, "Raise max_connections, or lower MAX_CONNECTIONS.")


def _check_doors(installation: Installation) -> Iterator[Finding]:
    query = """
        SELECT d.datname FROM pg_database d
        WHERE d.datallowconn AND d.datname <> current_database() AND EXISTS (
            SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
            WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT')
        ORDER BY 1"""
    for (name,) in installation.rows(query):
        what = "every login may connect to it and make temporary tables there"
        remedy = f"If nothing else needs it: REVOKE CONNECT, TEMP ON DATABASE {name} FROM PUBLIC;"
        yield warning("other_database", f"database {name}", what, remedy)


def _check_hba(installation: Installation) -> Iterator[Finding]:
    query = """
        SELECT line_number, auth_method, error FROM pg_hba_file_rules
        WHERE auth_method IN ('trust', 'password') OR error IS NOT NULL ORDER BY 1"""
    for line, method, fault in installation.rows(query):
        what = f"line {line}: {fault or f'the method {method}'}"
        yield warning("pg_hba", "pg_hba.conf", what, "Use scram-sha-256, and reload the server.")
