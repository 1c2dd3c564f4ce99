"""Every privilege of every role, derived from pg_catalog and compared with a table written out here.

A new privilege, table, function, policy or membership fails these tests until this file lists it.
"""

from collections import defaultdict
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from tenant_schemas.errors import NotPrepared
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.roles import (
    ServiceRoles,
    become_owner,
    create_pool_role,
    create_service_roles,
    create_tenant_role,
    disable_pool_role,
    revoke_public_on_default_databases,
    role_exists,
    set_tenant_login,
    tenant_password,
)
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.people import People

pytestmark = pytest.mark.changes_roles

REFUSED = psycopg.errors.InsufficientPrivilege
PAIRS = pytest.mark.parametrize(("slug", "other"), [("eur", "km"), ("km", "eur")])
OUR_SCHEMAS = ["eur_schema", "km_schema", "shared"]

Rights = dict[str, str]

TENANT_VIEWS = (
    *(
        "credit_in_use",
        "credit_limit_changes",
        "events_passed",
        "events_waiting",
        "ledger_postings",
        "movement_entries",
    ),
    *("trial_balance", "webhooks_due"),
)
TENANT_TABLES = (
    *(
        "alembic_version",
        "audit_chain",
        "audit_log",
        "audit_refusals",
        "bulk_requests",
        "command_outcomes",
        "credit_policies",
        "documents",
        "event_cursors",
        "events",
        "events_head",
        "holds",
        "ledger_accounts",
        "ledger_entries",
        "order_items",
    ),
    *("order_payments", "orders", "reconciliations", "wallet_transactions", "wallets"),
    *("webhook_attempts", "webhook_endpoints", "webhook_lanes", "webhook_parked", "webhook_replays"),
    *("proof_findings", "proof_progress", "wallet_proofs"),
    *TENANT_VIEWS,
)
# It gives events their order within a wallet.
TENANT_SEQUENCES = ("events_n",)
# With the owner's rights, so that they can write.
DEFINERS = (
    "audit_note_v1(jsonb)",
    "audit_note_v2(jsonb)",
    "audit_posted_v1(jsonb,{schema_name}.wallet_transactions,boolean)",
    "audit_posted_v2(jsonb,text,uuid,uuid,bigint,bigint,boolean)",
    "audit_refusals_end_v1()",
    "audit_refusals_end_v2()",
    "audit_refused_v1(jsonb)",
    "audit_refused_v2(jsonb)",
    "command_run_v1(text,text,text,bytea,uuid,bigint,jsonb,jsonb,text,jsonb,text)",
    "credit_policy_set_v1(text,bigint,bigint,uuid,text)",
    "credit_policy_set_v2(text,bigint,bigint,bigint,uuid,text)",
    "document_claim_v1()",
    "document_claim_v2()",
    "document_end_v1(uuid,integer,bytea,text)",
    "document_report_v1(uuid,integer,bigint,bigint)",
    "document_request_v1(uuid,uuid,timestamp with time zone,timestamp with time zone,bigint)",
    "documents_expire_v1()",
    "event_cursor_move_v1(text,uuid,uuid,bigint)",
    "event_cursor_take_v1(text,uuid,double precision)",
    "events_stamp_v1(integer)",
    "events_trim_v1(interval,boolean,integer)",
    "hold_authorise_v1(uuid,bigint,text,timestamp with time zone,text,text)",
    "hold_authorise_v2(uuid,bigint,text,timestamp with time zone,text,text)",
    "hold_capture_v1(uuid,uuid,bigint,text)",
    "hold_capture_v2(uuid,uuid,bigint,text)",
    "hold_void_v1(uuid,uuid)",
    "holds_expire_v1(integer)",
    "openings_compare_v1(jsonb,text,jsonb)",
    "openings_post_v1(jsonb,text,boolean)",
    "openings_post_v2(jsonb,text,boolean)",
    "openings_post_v3(jsonb,text,boolean)",
    "order_cancel_v1(uuid,uuid,text)",
    "order_cancel_v2(uuid,uuid,text)",
    "order_place_v1(uuid,text,jsonb,text)",
    "proof_step_v1(integer,interval)",
    "wallet_configure_v1(uuid,integer,uuid,bigint,text,text)",
    "wallet_configure_v2(uuid,integer,uuid,bigint,text,text)",
    "wallet_configure_v3(uuid,integer,uuid,bigint,text,text)",
    "wallet_open_v1(uuid,text)",
    "wallet_open_v2(uuid,text,uuid,text)",
    "wallet_open_v3(uuid,text,uuid,text)",
    "wallet_pay_many_v1(uuid[],uuid[],integer,text,bigint[],text[],text[])",
    "wallet_pay_v1(uuid,uuid,integer,text,bigint,text,text,text)",
    "wallet_pay_v2(uuid,uuid,integer,text,bigint,text,text,text)",
    "wallet_post_many_v1(jsonb,uuid,text,boolean)",
    "wallet_post_many_v2(jsonb,uuid,text,boolean)",
    "wallet_post_many_v3(jsonb,uuid,text,boolean,text)",
    "wallet_post_v1(uuid,text,bigint,text,uuid,text,uuid,text,text,text)",
    "wallet_post_v2(uuid,text,bigint,text,uuid,text,uuid,text,text,text,uuid)",
    "wallet_post_v3(uuid,uuid,text,text,bigint,text,uuid,text,uuid,text,text,text,uuid)",
    "wallet_post_v4(uuid,uuid,text,text,bigint,text,uuid,text,uuid,text,text,text,uuid)",
    "wallet_rehearse_v1(uuid,text)",
    "wallet_unopened_v1(uuid,text)",
    "wallets_open_missing_v1(uuid[],text)",
    "wallets_open_missing_v2(uuid[],text)",
    "webhook_change_v1(uuid,integer,text,text,text[],text,text)",
    "webhook_claim_v1(uuid,integer,uuid)",
    "webhook_claim_v2(uuid,integer,uuid)",
    "webhook_create_v1(text,text,text[],text,text)",
    "webhook_delete_v1(uuid)",
    "webhook_disable_v1(uuid)",
    "webhook_enable_v1(uuid,boolean)",
    "webhook_noticed_v1(uuid,uuid)",
    "webhook_replay_v1(uuid,bigint,bigint,text[])",
    "webhook_replay_v2(uuid,bigint,bigint,text[],timestamp with time zone,timestamp with time zone)",
    "webhook_rotate_v1(uuid)",
    "webhook_settle_v1(uuid,uuid,integer,jsonb)",
    "webhook_settle_v2(uuid,uuid,integer,jsonb)",
    "webhook_tested_v1(uuid,uuid,text,text,integer,text,integer,text)",
    "webhook_trim_v1(uuid,integer,integer,integer)",
    "webhooks_passed_v1()",
)
TENANT_FUNCTIONS = (
    *DEFINERS,
    "audit_hash_v1(bytea,{schema_name}.audit_log)",
    "credit_used_minor({schema_name}.wallets)",
    "deposit_balance_minor({schema_name}.wallets)",
    "events_audit_v1()",
    "events_waiting_v1()",
    "ledger_audit_v1()",
    "ledger_audit_v2()",
    "ledger_audit_v3()",
    "ledger_audit_v4()",
    "ledger_audit_v5()",
    "audit_log_findings_v1(bigint,bigint)",
    "entry_findings_v1(uuid[])",
    "event_findings_v1(bigint,bigint)",
    "feed_findings_v1()",
    "hold_findings_v1(uuid[])",
    "movement_event_findings_v1(uuid[],bigint[],bigint[])",
    "movement_findings_v1(uuid[],bigint[],bigint[])",
    "order_findings_v1(uuid[])",
    "order_payment_findings_v1(text[])",
    "tenant_findings_v1()",
    "wallet_findings_v1(uuid[])",
    "wallet_genesis_hash_v1(uuid,uuid,text)",
    "wallet_transaction_hash_v1(bytea,{schema_name}.wallet_transactions,jsonb)",
    "wallet_transaction_hash_v2(bytea,bytea,timestamp with time zone,uuid,uuid,text,bigint,text,bigint,bigint,text,"
    "uuid,text,uuid,uuid,text,text,text,text,text)",
)
SHARED_TABLES = (
    *(
        "account_mails",
        "alembic_version",
        "api_keys",
        "attempt_counts",
        "categories",
        "former_members",
        "memberships",
        "migration_outcomes",
        "migration_runs",
    ),
    *("invitations", "recovery_codes", "second_factors"),
    *("product_prices", "products", "provisionings", "refresh_tokens", "schema_fingerprints"),
    *("schema_stamps", "secret_checks", "sessions", "spare_schemas", "tenant_proofs", "tenants", "users"),
)
# The relay may call the first one; triggers nobody can.
SHARED_DEFINERS = (
    *("events_waiting_v1(text[])", "former_members_erase_v1()", "memberships_note_former_v1()"),
    *("users_erase_invitations_v1()", "users_forget_anonymised_v1()"),
)
SHARED_VIEWS = ("all_members", "member_directory")

# The effective privileges of a role, by its own grants, its groups' and PUBLIC's.
GROUP_RIGHTS: Rights = {
    "database": "CONNECT",
    "schema shared": "USAGE",
    "shared.all_members": "SELECT",
    "shared.categories": "SELECT",
    "shared.member_directory": "SELECT",
    "shared.memberships": "SELECT",
    "shared.product_prices": "SELECT",
    "shared.products": "SELECT",
    "shared.tenants": "SELECT",
}


def tenant_rights(schema_name: str) -> Rights:
    return (
        GROUP_RIGHTS
        | {f"schema {schema_name}": "USAGE"}
        | {f"{schema_name}.{table}": "SELECT" for table in TENANT_TABLES}
        | {f"{schema_name}.{function.format(schema_name=schema_name)}": "EXECUTE" for function in TENANT_FUNCTIONS}
    )


EXPECTED: dict[str, Rights] = {
    "wallet_app": {
        "database": "CONNECT",
        "schema shared": "USAGE",
        "shared.alembic_version": "SELECT",
        "shared.account_mails": "DELETE INSERT SELECT UPDATE",
        "shared.api_keys": "INSERT SELECT UPDATE",
        "shared.attempt_counts": "DELETE INSERT SELECT UPDATE",
        "shared.categories": "SELECT",
        "shared.former_members": "DELETE SELECT",
        "shared.invitations": "DELETE INSERT SELECT UPDATE",
        "shared.memberships": "DELETE INSERT SELECT UPDATE",
        "shared.product_prices": "SELECT",
        "shared.products": "SELECT",
        "shared.provisionings": "INSERT SELECT",
        "shared.migration_outcomes": "SELECT",
        "shared.migration_runs": "SELECT",
        "shared.spare_schemas": "SELECT",
        "shared.schema_fingerprints": "SELECT",
        "shared.schema_stamps": "SELECT",
        "shared.recovery_codes": "DELETE INSERT SELECT",
        "shared.refresh_tokens": "DELETE INSERT SELECT UPDATE",
        "shared.secret_checks": "SELECT",
        "shared.second_factors": "DELETE INSERT SELECT UPDATE",
        "shared.sessions": "DELETE INSERT SELECT UPDATE",
        "shared.tenant_proofs": "INSERT SELECT UPDATE",
        "shared.tenants": "SELECT UPDATE",
        "shared.users": "INSERT SELECT UPDATE",
    },
    "tenant_eur": tenant_rights("eur_schema"),
    "tenant_km": tenant_rights("km_schema"),
    "wallet_tenants": GROUP_RIGHTS,
    "wallet_backup": (
        {"database": "CONNECT", "schema public": "USAGE"}
        | {f"schema {schema_name}": "USAGE" for schema_name in OUR_SCHEMAS}
        | {
            f"{schema_name}.{name}": "SELECT"
            for schema_name in OUR_SCHEMAS[:2]
            for name in (*TENANT_TABLES, *TENANT_SEQUENCES)
        }
        | {f"shared.{table}": "SELECT" for table in (*SHARED_TABLES, *SHARED_VIEWS)}
    ),
    "wallet_relay": {
        "database": "CONNECT",
        "schema shared": "USAGE",
        "shared.events_waiting_v1(text[])": "EXECUTE",
        "shared.tenants": "SELECT",
    },
    "PUBLIC": {},
}

MATRIX = """
    WITH roles (role_name) AS (SELECT unnest(%(roles)s::text[])),
    ours AS (
        SELECT oid, nspname FROM pg_namespace
        WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%%'
    )
    SELECT r.role_name, n.nspname || '.' || c.relname, p.privilege
    FROM roles r, pg_class c JOIN ours n ON n.oid = c.relnamespace,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS p (privilege)
    WHERE c.relkind NOT IN ('i', 'I', 'S', 'c') AND has_any_column_privilege(r.role_name, c.oid, p.privilege)
    UNION ALL
    SELECT r.role_name, n.nspname || '.' || c.relname, p.privilege
    FROM roles r, pg_class c JOIN ours n ON n.oid = c.relnamespace,
        unnest(%(table_privileges)s::text[]) AS p (privilege)
    WHERE c.relkind NOT IN ('i', 'I', 'S', 'c') AND has_table_privilege(r.role_name, c.oid, p.privilege)
    UNION ALL
    SELECT r.role_name, n.nspname || '.' || c.relname, p.privilege
    FROM roles r, pg_class c JOIN ours n ON n.oid = c.relnamespace,
        unnest(ARRAY['SELECT', 'UPDATE', 'USAGE']) AS p (privilege)
    WHERE c.relkind = 'S' AND has_sequence_privilege(r.role_name, c.oid, p.privilege)
    UNION ALL
    SELECT r.role_name, f.oid::regprocedure::text, 'EXECUTE'
    FROM roles r, pg_proc f JOIN ours n ON n.oid = f.pronamespace
    WHERE has_function_privilege(r.role_name, f.oid, 'EXECUTE')
    UNION ALL
    SELECT r.role_name, 'schema ' || n.nspname, p.privilege
    FROM roles r, ours n, unnest(ARRAY['USAGE', 'CREATE']) AS p (privilege)
    WHERE has_schema_privilege(r.role_name, n.oid, p.privilege)
    UNION ALL
    SELECT r.role_name, 'database', p.privilege
    FROM roles r, unnest(ARRAY['CONNECT', 'CREATE', 'TEMP']) AS p (privilege)
    WHERE has_database_privilege(r.role_name, current_database(), p.privilege)"""


def matrix(superuser: psycopg.Connection[Any]) -> dict[str, Rights]:
    """The privileges of each role. A new role without memberships stands for PUBLIC."""
    probe = f"probe_{uuid4().hex[:8]}"
    table_privileges = ["DELETE", "TRUNCATE", "TRIGGER"]
    if superuser.info.server_version >= 170000:
        table_privileges.append("MAINTAIN")
    found: dict[str, dict[str, list[str]]] = {role_name: defaultdict(list) for role_name in EXPECTED}
    with superuser.transaction(force_rollback=True):
        superuser.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(probe)))
        roles = [probe if role_name == "PUBLIC" else role_name for role_name in EXPECTED]
        for role_name, thing, privilege in superuser.execute(
            MATRIX, {"roles": roles, "table_privileges": table_privileges}
        ):
            found["PUBLIC" if role_name == probe else role_name][thing].append(privilege)
    return {
        role_name: {thing: " ".join(sorted(privileges)) for thing, privileges in things.items()}
        for role_name, things in found.items()
    }


def test_every_role_may_do_what_is_written_here_and_nothing_else(fresh_database: Database) -> None:
    assert matrix(fresh_database.as_superuser()) == EXPECTED


def test_the_matrix_sees_what_is_added(fresh_database: Database) -> None:
    """A privilege on a column, of PUBLIC, of a group, on a sequence, on a function of another owner: each is seen."""
    superuser = fresh_database.as_superuser()
    for statement in (
        "GRANT UPDATE (status) ON eur_schema.wallets TO tenant_eur",
        "GRANT TRUNCATE ON shared.tenants TO wallet_tenants",
        "CREATE SEQUENCE km_schema.numbers",
        "GRANT USAGE ON SEQUENCE km_schema.numbers TO tenant_km",
        "CREATE FUNCTION shared.everybodys() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        f"GRANT TEMP ON DATABASE {fresh_database.name} TO PUBLIC",
        "GRANT CREATE ON SCHEMA eur_schema TO tenant_km",
    ):
        superuser.execute(statement)  # type: ignore[arg-type]
    found = matrix(superuser)
    assert found["tenant_eur"]["eur_schema.wallets"] == "SELECT UPDATE"
    assert found["tenant_km"]["shared.tenants"] == found["tenant_eur"]["shared.tenants"] == "SELECT TRUNCATE"
    assert found["tenant_km"]["km_schema.numbers"] == "USAGE"
    assert found["tenant_km"]["schema eur_schema"] == "CREATE"
    assert found["PUBLIC"] == {"shared.everybodys()": "EXECUTE", "database": "TEMP"}


def test_no_object_of_ours_is_missing_from_what_is_written_here(database: Database) -> None:
    """Each table, view, function and type; and no sequence of keys, because keys are uuids."""
    superuser = database.as_superuser()
    relations = superuser.execute(
        "SELECT n.nspname, c.relkind::text, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = ANY(%s) AND c.relkind <> 'i'",
        (OUR_SCHEMAS,),
    ).fetchall()
    assert sorted(relations) == sorted(
        [("shared", "r", table) for table in SHARED_TABLES]
        + [("shared", "v", view) for view in SHARED_VIEWS]
        + [
            (schema_name, "v" if table in TENANT_VIEWS else "r", table)
            for schema_name in OUR_SCHEMAS[:2]
            for table in TENANT_TABLES
        ]
        + [(schema_name, "S", sequence) for schema_name in OUR_SCHEMAS[:2] for sequence in TENANT_SEQUENCES]
    )
    schemas = superuser.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'"
    ).fetchall()
    assert sorted(name for (name,) in schemas) == sorted([*OUR_SCHEMAS, "public"])


def test_everything_of_ours_is_the_owners(database: Database) -> None:
    owners = database.as_superuser().execute(
        """
        SELECT DISTINCT o.owner::regrole::text FROM pg_namespace n CROSS JOIN LATERAL (
            SELECT n.nspowner UNION ALL SELECT relowner FROM pg_class WHERE relnamespace = n.oid
            UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace = n.oid
            UNION ALL SELECT typowner FROM pg_type WHERE typnamespace = n.oid) AS o (owner)
        WHERE n.nspname = ANY(%s)""",
        (OUR_SCHEMAS,),
    )
    assert owners.fetchall() == [("wallet_owner",)]


def test_what_the_owner_will_make_is_nobodys_either(fresh_database: Database) -> None:
    """PUBLIC can't call the next migration's function without a grant."""
    superuser = fresh_database.as_superuser()
    superuser.execute("SET ROLE wallet_owner")
    for schema_name in OUR_SCHEMAS:
        superuser.execute(f"CREATE FUNCTION {schema_name}.next() RETURNS int LANGUAGE sql AS 'SELECT 1'")  # type: ignore[arg-type]
        superuser.execute(f"CREATE TABLE {schema_name}.next (id uuid)")  # type: ignore[arg-type]
    superuser.execute("RESET ROLE")
    found = matrix(superuser)
    del found["wallet_backup"], found["PUBLIC"]
    assert [(role, thing) for role, rights in found.items() for thing in rights if "next" in thing] == []


# Functions, views and policies.


def test_functions_with_the_owners_rights_are_known_and_keep_their_path(database: Database) -> None:
    """The caller could abuse a SECURITY DEFINER function whose search_path the caller chooses."""
    rows = database.as_superuser().execute(
        "SELECT n.nspname, p.oid::regprocedure::text, p.proconfig FROM pg_proc p"
        " JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prosecdef AND n.nspname = ANY(%s)",
        (OUR_SCHEMAS,),
    )
    found = {
        name: [setting for setting in configured or () if setting.startswith("search_path=")]
        for _, name, configured in rows
    }
    assert found == {
        f"{schema_name}.{function.format(schema_name=schema_name)}": [f"search_path={schema_name}, pg_temp"]
        for schema_name in OUR_SCHEMAS[:2]
        for function in DEFINERS
    } | {f"shared.{function}": ["search_path=shared, pg_temp"] for function in SHARED_DEFINERS}


def test_views_have_their_readers_rights_but_for_those_of_members(database: Database) -> None:
    rows = database.as_superuser().execute(
        "SELECT c.relname, c.reloptions FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = ANY(%s) AND c.relkind = 'v'",
        (OUR_SCHEMAS,),
    )
    tenants = [(view, ["security_invoker=true"]) for view in TENANT_VIEWS for _ in OUR_SCHEMAS[:2]]
    assert sorted(rows.fetchall()) == sorted([*tenants, *((view, ["security_barrier=true"]) for view in SHARED_VIEWS)])


def test_every_shared_table_is_under_row_level_security(database: Database) -> None:
    """Except Alembic's own table, which no tenant may read. The policies check the current role, never a setting."""
    superuser = database.as_superuser()
    tables = superuser.execute(
        "SELECT relname, relrowsecurity FROM pg_class WHERE relnamespace = 'shared'::regnamespace AND relkind = 'r'"
    ).fetchall()
    assert dict(tables) == {table: table != "alembic_version" for table in SHARED_TABLES}
    policies = superuser.execute(
        "SELECT polrelid::regclass::text, polroles::regrole[]::text, polcmd::text, polpermissive,"
        " pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid) FROM pg_policy"
    ).fetchall()
    assert sorted(policies) == [
        ("shared.account_mails", "{wallet_app}", "*", True, "true", None),
        ("shared.api_keys", "{wallet_app}", "*", True, "true", None),
        ("shared.attempt_counts", "{wallet_app}", "*", True, "true", "true"),
        ("shared.categories", "{wallet_app}", "*", True, "true", None),
        ("shared.categories", "{wallet_tenants}", "r", True, "true", None),
        ("shared.former_members", "{wallet_app}", "*", True, "true", None),
        ("shared.invitations", "{wallet_app}", "*", True, "true", None),
        ("shared.memberships", "{wallet_app}", "*", True, "true", None),
        ("shared.memberships", "{wallet_tenants}", "*", True, "(tenant_role = CURRENT_USER)", None),
        ("shared.migration_outcomes", "{wallet_app}", "r", True, "true", None),
        ("shared.migration_runs", "{wallet_app}", "r", True, "true", None),
        ("shared.product_prices", "{wallet_app}", "*", True, "true", None),
        ("shared.product_prices", "{wallet_tenants}", "r", True, "true", None),
        ("shared.products", "{wallet_app}", "*", True, "true", None),
        ("shared.products", "{wallet_tenants}", "r", True, "true", None),
        ("shared.provisionings", "{wallet_app}", "*", True, "true", None),
        ("shared.recovery_codes", "{wallet_app}", "*", True, "true", None),
        ("shared.refresh_tokens", "{wallet_app}", "*", True, "true", None),
        ("shared.schema_fingerprints", "{wallet_app}", "r", True, "true", None),
        ("shared.schema_stamps", "{wallet_app}", "r", True, "true", None),
        ("shared.second_factors", "{wallet_app}", "*", True, "true", None),
        ("shared.secret_checks", "{wallet_app}", "*", True, "true", None),
        ("shared.sessions", "{wallet_app}", "*", True, "true", None),
        ("shared.spare_schemas", "{wallet_app}", "r", True, "true", None),
        ("shared.tenant_proofs", "{wallet_app}", "*", True, "true", None),
        ("shared.tenants", "{wallet_app}", "*", True, "true", None),
        ("shared.tenants", "{wallet_relay}", "r", True, "true", None),
        ("shared.tenants", "{wallet_tenants}", "*", True, "(role_name = CURRENT_USER)", None),
        ("shared.users", "{wallet_app}", "*", True, "true", None),
    ]


# The roles themselves.


def test_no_role_has_an_attribute_it_does_not_need(database: Database) -> None:
    rows = database.as_superuser().execute(
        "SELECT rolname, rolcanlogin, rolcreaterole, rolbypassrls, rolsuper OR rolcreatedb OR rolreplication, rolconfig"
        " FROM pg_roles WHERE rolname ~ '^(wallet|tenant)_'"
    )
    shared_side, nothing = ["search_path=pg_catalog, pg_temp"], None
    assert {role_name: tuple(rest) for role_name, *rest in rows} == {
        # can log in, can make roles, is above row-level security, any of the rest, its settings
        "wallet_owner": (False, False, False, False, nothing),
        "wallet_migrator": (True, True, False, False, shared_side),
        "wallet_app": (True, False, False, False, shared_side),
        "wallet_backup": (True, False, True, False, shared_side),
        "wallet_relay": (True, False, False, False, shared_side),
        "wallet_tenants": (False, False, False, False, nothing),
        "wallet_pool": (True, False, False, False, shared_side),
        "tenant_eur": (True, False, False, False, ["search_path=eur_schema, pg_temp"]),
        "tenant_km": (True, False, False, False, ["search_path=km_schema, pg_temp"]),
    }


def test_who_is_whose_member_is_written_here(database: Database) -> None:
    """PostgreSQL makes the migrator an administrator of the roles it creates, without the right to become them."""
    superuser = database.as_superuser()
    options = "inherit_option, set_option" if superuser.info.server_version >= 160000 else "true, true"
    rows = superuser.execute(
        f"SELECT member::regrole::text, roleid::regrole::text, {options} FROM pg_auth_members"  # type: ignore[arg-type]
        " WHERE member::regrole::text ~ '^(wallet|tenant)_' AND roleid::regrole::text !~ '^parked_'"  # of the test kit
    ).fetchall()
    expected = {
        ("tenant_eur", "wallet_tenants", True, True),
        ("tenant_km", "wallet_tenants", True, True),
        ("wallet_backup", "pg_read_all_data", True, True),
        ("wallet_backup", "pg_read_all_stats", True, True),
        ("wallet_migrator", "pg_read_all_stats", True, True),
        ("wallet_migrator", "wallet_owner", True, True),
        ("wallet_migrator", "wallet_tenants", True, True),
    }
    # The pool may take a tenant's role, and inherits nothing of it: before 16 its own attribute ensures that.
    is_old = superuser.info.server_version < 160000
    expected |= {("wallet_pool", f"tenant_{slug}", is_old, True) for slug in ("eur", "km")}
    inherits = superuser.execute("SELECT rolinherit FROM pg_roles WHERE rolname = 'wallet_pool'").fetchone()
    assert inherits == (False,)
    # Before 16 an ADMIN OPTION is a membership with all rights.
    expected |= {("wallet_migrator", f"tenant_{slug}", is_old, is_old) for slug in ("eur", "km")}
    assert set(rows) == expected


def test_the_service_login_can_become_nobody(database: Database) -> None:
    connection = database.as_role("wallet_app")
    for role_name in ("tenant_eur", "tenant_km", "wallet_tenants", "wallet_owner", "wallet_migrator", "postgres"):
        with pytest.raises(REFUSED):
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role_name)))


def test_the_migrator_can_not_become_a_tenant(database: Database) -> None:
    if database.as_superuser().info.server_version < 160000:
        pytest.skip("Before PostgreSQL 16 a role may become the roles that it creates.")
    connection = database.as_role("wallet_migrator")
    for slug in ("eur", "km"):
        with pytest.raises(REFUSED):
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"tenant_{slug}")))


@pytest.mark.parametrize("role_name", ["wallet_owner", "wallet_tenants"])
def test_the_owner_and_the_group_can_not_log_in(database: Database, role_name: str) -> None:
    """Not even with a password."""
    superuser = database.as_superuser()
    superuser.execute(sql.SQL("ALTER ROLE {} PASSWORD 'x'").format(sql.Identifier(role_name)))
    try:
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            psycopg.connect(database.url(role_name, "x"))
    finally:
        superuser.execute(sql.SQL("ALTER ROLE {} PASSWORD NULL").format(sql.Identifier(role_name)))


def test_passwords_are_kept_as_scram_verifiers(database: Database) -> None:
    rows = database.as_superuser().execute(
        "SELECT rolname, rolpassword FROM pg_authid WHERE rolname ~ '^(wallet|tenant)_' AND rolcanlogin"
    )
    passwords = dict(rows.fetchall())
    service = {"wallet_migrator", "wallet_app", "wallet_backup", "wallet_relay", "wallet_pool"}
    assert set(passwords) == {*service, "tenant_eur", "tenant_km"}
    assert {name: password.partition("$")[0] for name, password in passwords.items()} == dict.fromkeys(
        passwords, "SCRAM-SHA-256"
    )


# A tenant's view of the shared schema.


@pytest.fixture
def members(people: People) -> dict[str, set[UUID]]:
    """Users who belong to one tenant, to the other, and to both."""
    only_eur, only_km, both = people.make(eur="member"), people.make(km="admin"), people.make(eur="admin", km="member")
    people.make()
    return {"eur": {only_eur.user_id, both.user_id}, "km": {only_km.user_id, both.user_id}}


@PAIRS
def test_a_tenant_reads_its_own_registry_row_memberships_and_members_only(
    database: Database, members: dict[str, set[UUID]], slug: str, other: str
) -> None:
    connection = database.as_tenant(slug)
    assert connection.execute("SELECT slug, role_name FROM shared.tenants").fetchall() == [(slug, f"tenant_{slug}")]
    memberships = connection.execute("SELECT user_id, tenant_id FROM shared.memberships").fetchall()
    assert {tenant_id for _, tenant_id in memberships} == {database.tenant(slug).id}
    seen = {user_id for user_id, _ in memberships}
    assert members[slug] <= seen
    assert not (members[other] - members[slug]) & seen
    directory = connection.execute("SELECT user_id, email FROM shared.member_directory").fetchall()
    assert {user_id for user_id, _ in directory} == seen
    assert all(email for _, email in directory)


@PAIRS
def test_a_leaky_condition_sees_no_row_of_another(
    database: Database, members: dict[str, set[UUID]], slug: str, other: str
) -> None:
    """A condition whose error shows its input would leak; it is evaluated after the policy and the view's own
    condition.
    """
    connection = database.as_tenant(slug)
    strangers = members[other] - members[slug]
    for table in ("shared.memberships", "shared.member_directory"):
        query = f"SELECT count(*) FROM {table} WHERE 1 / (CASE WHEN user_id = ANY(%s) THEN 0 ELSE 1 END) = 1"
        assert connection.execute(query, (list(strangers),)).fetchone() != (0,)  # type: ignore[arg-type]


@PAIRS
@pytest.mark.usefixtures("members")
def test_becoming_the_group_shows_a_tenant_nothing(database: Database, slug: str, other: str) -> None:
    """As a member it may; but the group is no tenant, so no row belongs to it."""
    connection = database.as_tenant(slug)
    connection.execute("SET ROLE wallet_tenants")
    for table in ("tenants", "memberships", "member_directory"):
        assert connection.execute(f"SELECT count(*) FROM shared.{table}").fetchone() == (0,)  # type: ignore[arg-type]
    for table in ("shared.users", "shared.alembic_version", "eur_schema.wallets", "km_schema.wallets"):
        with pytest.raises(REFUSED):
            connection.execute(f"SELECT count(*) FROM {table}")  # type: ignore[arg-type]
    with pytest.raises(REFUSED):
        connection.execute(f"SET ROLE tenant_{other}")  # type: ignore[arg-type]


@PAIRS
def test_a_tenant_reads_no_user_and_writes_nothing_shared(database: Database, slug: str, other: str) -> None:
    connection = database.as_tenant(slug)
    for statement in (
        "SELECT 1 FROM shared.users",
        "SELECT password_hash FROM shared.users",
        "SELECT 1 FROM shared.alembic_version",
        "UPDATE shared.tenants SET status = 'suspended'",
        "DELETE FROM shared.memberships",
        f"UPDATE shared.memberships SET tenant_role = 'tenant_{other}'",
        "CREATE TABLE shared.mine ()",
        f"CREATE TABLE {slug}_schema.mine ()",
        "CREATE TABLE public.mine ()",
        "CREATE TEMP TABLE mine ()",
        "CREATE SCHEMA mine",
        f"DROP SCHEMA {slug}_schema CASCADE",
        f"ALTER TABLE {slug}_schema.wallets DISABLE TRIGGER ALL",
        f"SELECT {slug}_schema.refuse_change_v1()",
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'x')",
        *UNNEEDED,
    ):
        with pytest.raises(REFUSED):
            connection.execute(statement)  # type: ignore[arg-type]


UNNEEDED = (
    "SELECT set_config('search_path', 'shared', true)",
    "SELECT set_config('statement_timeout', '0', false)",
    "UPDATE pg_settings SET setting = '0' WHERE name = 'statement_timeout'",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock_shared(1)",
    "SELECT pg_advisory_xact_lock(1, 2)",
    "SELECT pg_advisory_unlock_all()",
    "SELECT pg_notify('all', 'x')",
    "TABLE pg_stat_activity",
    "TABLE pg_locks",
)


@pytest.mark.parametrize("role_name", ["wallet_app", "wallet_pool"])
def test_no_login_of_the_service_has_a_function_that_it_needs_not(database: Database, role_name: str) -> None:
    connection = database.as_pool() if role_name == "wallet_pool" else database.as_role(role_name)
    for statement in UNNEEDED:
        with pytest.raises(REFUSED):
            connection.execute(statement)  # type: ignore[arg-type]


def test_who_migrates_and_who_dumps_may_change_settings(database: Database) -> None:
    for role_name in ("wallet_migrator", "wallet_backup"):
        row = database.as_role(role_name).execute("SELECT set_config('search_path', '', false)").fetchone()
        assert row == ("",)


# Making the roles.


def superuser_engine(database: Database) -> sa.Engine:
    return sa.create_engine(sa.make_url(database.url()).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)


def verifiers(database: Database) -> dict[str, str]:
    rows = database.as_superuser().execute("SELECT rolname, rolpassword FROM pg_authid WHERE rolname ~ '^wallet_'")
    return dict(rows.fetchall())


def test_making_the_roles_again_changes_nothing(fresh_database: Database) -> None:
    """Without passwords each role keeps its own."""
    before = verifiers(fresh_database)
    for _ in range(2):
        with superuser_engine(fresh_database).begin() as connection:
            create_service_roles(connection, fresh_database.roles, {})
    assert verifiers(fresh_database) == before
    assert matrix(fresh_database.as_superuser()) == EXPECTED


def test_making_the_roles_again_closes_what_was_opened(fresh_database: Database) -> None:
    superuser = fresh_database.as_superuser()
    superuser.execute(f"GRANT ALL ON DATABASE {fresh_database.name} TO PUBLIC")  # type: ignore[arg-type]
    superuser.execute("GRANT ALL ON SCHEMA public TO PUBLIC")
    assert matrix(superuser)["PUBLIC"]
    with superuser_engine(fresh_database).begin() as connection:
        create_service_roles(connection, fresh_database.roles, {})
    assert matrix(superuser) == EXPECTED


def test_a_new_password_replaces_the_old_one_and_is_never_sent(fresh_database: Database) -> None:
    """The server, and so its log, gets only the verifier. Rolled back: the roles belong to the whole server."""
    password = "a secret password"
    sent: list[Any] = []
    engine = superuser_engine(fresh_database)
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[2:4]))
    with engine.connect() as connection, connection.begin() as transaction:
        create_service_roles(connection, fresh_database.roles, {"wallet_app": password})
        rows = connection.exec_driver_sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'wallet_app'")
        new = rows.scalar_one()
        transaction.rollback()
    assert new.startswith("SCRAM-SHA-256$")
    assert new != verifiers(fresh_database)["wallet_app"]
    assert any("SCRAM-SHA-256$" in statement for statement, _ in sent)
    assert password not in str(sent)


def test_without_the_owner_nobody_can_become_it(database: Database) -> None:
    with database.admin_engine().begin() as connection:
        assert role_exists(connection, "wallet_owner")
        assert not role_exists(connection, "nobodys_owner")
        with pytest.raises(NotPrepared, match="nobodys_owner"):
            become_owner(connection, ServiceRoles.named("nobodys"))


def test_being_the_owner_ends_with_the_transaction(database: Database) -> None:
    with database.admin_engine().connect() as connection:
        with connection.begin():
            become_owner(connection, database.roles)
            assert connection.exec_driver_sql("SELECT current_user").scalar_one() == "wallet_owner"
        with connection.begin():
            assert connection.exec_driver_sql("SELECT current_user").scalar_one() == "wallet_migrator"


# Logins of tenants.


def test_setting_a_tenants_login_right_takes_back_what_the_tenant_gave_itself(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    """A role may always change its own password and defaults, and so may SQL injected into its connection."""
    tenant = make_tenant(fresh_database, tenancy_migrations, "healed", {})
    connection = fresh_database.as_tenant("healed")
    for change in ("PASSWORD 'known'", "SET search_path TO shared", "SET statement_timeout TO 0", "SET role TO none"):
        connection.execute(sql.SQL("ALTER ROLE CURRENT_USER " + change))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        fresh_database.as_tenant("healed")
    with superuser_engine(fresh_database).begin() as superuser:
        set_tenant_login(superuser, tenant, fresh_database.password_of(tenant))
    assert fresh_database.as_tenant("healed").execute("SELECT current_schema()").fetchone() == ("healed_schema",)
    settings = "SELECT rolconfig FROM pg_roles WHERE rolname = 'tenant_healed'"
    assert fresh_database.as_superuser().execute(settings).fetchone() == (["search_path=healed_schema, pg_temp"],)


def test_a_tenants_password_follows_from_secret_id_and_epoch() -> None:
    """The password is written out here because a change would lock every tenant out."""
    tenant_id = UUID("00000000-0000-0000-0000-000000000001")
    password = tenant_password("secret", tenant_id, 1)
    assert password == "6hNphNJtBvCO8Hl9z26ziiE-gqxPgT_yeMfUY4ZeV0s"
    others = {
        tenant_password("secreT", tenant_id, 1),
        tenant_password("secret", UUID(int=2), 1),
        tenant_password("secret", tenant_id, 2),
        tenant_password("secret", tenant_id, 11),
    }
    assert len(others) == 4
    assert password not in others
    assert all(len(one) == len(password) == 43 for one in others)  # 256 bits


# The login that tenants may share.


def pool_memberships(connection: sa.Connection) -> list[str]:
    query = "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = 'wallet_pool'::regrole ORDER BY 1"
    return list(connection.exec_driver_sql(query).scalars())


def test_the_pool_is_closed_and_opened_again_with_all_the_tenants_there_are(fresh_database: Database) -> None:
    """Roles belong to the whole server, so nothing is committed here. A tenant provisioned in between is included."""
    roles = fresh_database.roles
    may_log_in = "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'wallet_pool'"
    with superuser_engine(fresh_database).connect() as connection, connection.begin() as db_transaction:
        disable_pool_role(connection, roles)
        assert pool_memberships(connection) == []
        assert connection.exec_driver_sql(may_log_in).scalar_one() is False
        late = replace(fresh_database.tenant("eur"), id=uuid4(), role_name="tenant_late")
        create_tenant_role(connection, late, "x", roles)
        assert pool_memberships(connection) == []
        for _ in range(2):
            create_pool_role(connection, roles, "x")
        assert pool_memberships(connection) == ["tenant_eur", "tenant_km", "tenant_late"]
        assert connection.exec_driver_sql(may_log_in).scalar_one() is True
        db_transaction.rollback()


def test_a_pool_that_was_never_made_needs_no_closing(fresh_database: Database) -> None:
    with superuser_engine(fresh_database).begin() as connection:
        disable_pool_role(connection, replace(fresh_database.roles, pool="nobodys_pool"))


def test_postgresqls_own_databases_can_be_closed(fresh_database: Database) -> None:
    """Nothing is committed: the databases belong to the whole server."""
    query = (
        "SELECT has_database_privilege('tenant_eur', datname, 'CONNECT') FROM pg_database WHERE datname = 'postgres'"
    )
    with superuser_engine(fresh_database).connect() as connection, connection.begin() as db_transaction:
        assert connection.exec_driver_sql(query).scalar_one() is True
        revoke_public_on_default_databases(connection)
        assert connection.exec_driver_sql(query).scalar_one() is False
        db_transaction.rollback()
