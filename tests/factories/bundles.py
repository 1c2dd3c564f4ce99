"""Shared by the tests of restore: a tenant with rows in every table, its bundles, and queries of tenants."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from psycopg import sql

from app.backup_policy import BACKUP_POLICY
from app.tenancy import MIGRATIONS, RESERVED_SLUGS
from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import Bundle, open_bundle
from tenant_schemas.backup.manifest import Manifest
from tenant_schemas.backup.signature import BundleKeys
from tenant_schemas.backup.table_io import write_rows
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.lifecycle.provision import new_tenant, provision_in
from tenant_schemas.restore.restore import Destination
from tenant_schemas.testing.plugin import Database, DerivedTemplate, make_tenant
from tests.factories.application import running
from tests.factories.backups import KEYS, source_of, write_manifest
from tests.factories.catalogue import Catalogue
from tests.factories.people import People, Person

# Personal data that a clone must not contain.
SECRETS = (
    *("Ana Horvat", "Anči", "Ana's rent for May", "IBAN BA391290079401028494", "Ana was billed twice"),
    *("order-of-ana-17", "key-made-of-ana", "room-of-ana", "A room for Ana", "203.0.113.77", "request-of-ana"),
)


@dataclass(frozen=True, slots=True)
class Furnished:
    """The people of a furnished tenant, and the member's wallet."""

    member: Person
    admin: Person
    wallet_id: UUID

    @property
    def emails(self) -> tuple[str, str]:
        return (self.member.email, self.admin.email)


SLUG = "shop"


def furnish(database: Database, app: Flask, slug: str = SLUG) -> Furnished:
    """Make a tenant with rows in every table. Logins belong to the whole server, and a restore changes the tenant's
    login: so no other test has this tenant.
    """
    make_tenant(database, MIGRATIONS, slug, {"currency": "BAM"})
    people = People(app)
    member, admin = people.make(name="Ana Horvat", **{slug: "member"}), people.make(**{slug: "admin"})
    renamed = "UPDATE shared.memberships SET name = 'Anči' WHERE user_id = %s"
    database.as_superuser().execute(renamed, (member.user_id,))
    wallet_id = people.wallet(member, slug, balance_minor=100_000, credit_limit_minor=5_000)
    _, product_id = Catalogue(database).product(BAM="2.50")
    named = {"wallet": wallet_id, "member": member.user_id, "admin": admin.user_id, "currency": "BAM"}
    items = json.dumps([[str(product_id), 2]])
    old = {"user_id": str(member.user_id), "calculated_minor": 700, "source_rows": 1, "source_hash": "ab"}
    tenant = database.as_tenant(slug)
    _post_in_first_form(database, slug, wallet_id)
    for statement in _MOVEMENTS:
        tenant.execute(statement, named | {"items": items, "source": json.dumps([old])})
    for statement in _PROOFS:
        database.as_superuser().execute(statement.format(f"{slug}_schema").encode())
    return Furnished(member, admin, wallet_id)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the furnished template holds, and the folder of a backup of its tenant."""

    furnished: Furnished
    bundle: Path


@pytest.fixture(scope="session")
def furnished_template(
    template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DerivedTemplate[Prepared]]:
    """The template with a furnished tenant."""
    folder = tmp_path_factory.mktemp("furnished")
    with closing(DerivedTemplate(template, lambda database: prepare(database, folder))) as derived:
        yield derived


def prepare(database: Database, folder: Path) -> Prepared:
    with running(database, token_seconds=86_400) as app:
        furnished = furnish(database, app)
    return Prepared(furnished, take(database, SLUG, folder).folder)


@pytest.fixture
def furnished(fresh_database: Database, furnished_template: DerivedTemplate[Prepared]) -> Furnished:
    """A tenant of this test's own with rows in every table; its slug is SLUG."""
    return furnished_template.made.furnished


@pytest.fixture
def bundle(furnished: Furnished, furnished_template: DerivedTemplate[Prepared], tmp_path: Path) -> Bundle:
    """A backup of the furnished tenant."""
    return open_bundle(shutil.copytree(furnished_template.made.bundle, tmp_path / uuid4().hex), KEYS)


def make_old(database: Database, app: Flask, revision: str) -> UUID:
    """Make a tenant at an older revision, with a wallet of 3.00 that has a limit; returns its id."""
    new = new_tenant(MIGRATIONS, slug=SLUG, name="Old", settings={"currency": "BAM"})
    with database.admin_engine().begin() as connection:
        provision_in(connection, MIGRATIONS, replace(new, revision=revision), database.tenant_secret)
    member = People(app).make(**{SLUG: "member"})
    tenant = database.as_tenant(SLUG)
    ((wallet_id,),) = tenant.execute("SELECT (o.wallet).id FROM wallet_open_v1(%s, 'BAM') o", (member.user_id,))
    for amount_minor in (100, 200):
        tenant.execute(
            "SELECT wallet_post_v1(%s, 'deposit', %s, %s, NULL, NULL, NULL, 'Old', NULL, NULL)",
            (wallet_id, amount_minor, str(amount_minor)),
        )
    tenant.execute("SELECT wallet_configure_v1(%s, 1, %s, 500, NULL, NULL)", (wallet_id, member.user_id))
    return UUID(str(wallet_id))


def _post_in_first_form(database: Database, slug: str, wallet_id: UUID) -> None:
    """A deposit and a payment of 5 minor units as before revision 0009: the ledger entry in a table of its own, and the
    hash over jsonb.
    """
    connection = database.as_superuser()
    connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(f"{slug}_schema")))
    connection.execute("SELECT set_config('test.wallet', %s, false)", (str(wallet_id),))
    connection.execute("""
        DO $$
        DECLARE
            w wallets;
            t wallet_transactions;
            e record;
        BEGIN
            FOR e IN VALUES ('deposit', 5, 'cash', 'wallets'), ('payment', -5, 'wallets', 'sales') LOOP
                SELECT * INTO w FROM wallets WHERE id = current_setting('test.wallet')::uuid FOR NO KEY UPDATE;
                t := NULL;
                t.id := gen_random_uuid();
                t.wallet_id := w.id;
                t.currency := w.currency;
                t.seq := w.last_seq + 1;
                t.type := e.column1;
                t.amount_minor := e.column2;
                t.balance_after_minor := w.balance_minor + e.column2;
                t.idempotency_key := 'before-' || e.column1;
                t.request_fingerprint := movement_fingerprint_v1(t, 5);
                t.created_at := greatest(clock_timestamp(), w.last_posted_at);
                t.hash := wallet_transaction_hash_v1(w.last_hash, t, jsonb_build_array(
                    jsonb_build_array(1, e.column3, e.column4, 5)));
                INSERT INTO wallet_transactions SELECT t.*;
                INSERT INTO ledger_entries VALUES (t.id, 1, e.column3, e.column4, 5);
                UPDATE wallets SET balance_minor = t.balance_after_minor, last_seq = t.seq, last_hash = t.hash,
                    last_posted_at = t.created_at WHERE id = w.id;
            END LOOP;
        END $$""")


_MOVEMENTS = (
    "SELECT credit_policy_set_v1(%(currency)s, 1000, 90000, %(admin)s, 'request-of-ana')",
    """SELECT wallet_post_v2(%(wallet)s, 'deposit', 30000, 'key-made-of-ana', %(admin)s, NULL, NULL,
        'Ana''s rent for May', 'IBAN BA391290079401028494', NULL)""",
    """SELECT wallet_post_v2(%(wallet)s, 'payment', 2000, 'payment', NULL, 'order-of-ana-17',
        NULL, NULL, NULL, NULL)""",
    """SELECT wallet_post_v2(%(wallet)s, 'refund', 500, 'refund', %(admin)s, NULL,
        (SELECT id FROM wallet_transactions WHERE idempotency_key = 'payment'), NULL, NULL, NULL)""",
    """SELECT wallet_post_v2(%(wallet)s, 'adjustment', -100, 'adjustment', %(admin)s, NULL, NULL, NULL, NULL,
        'Ana was billed twice')""",
    "SELECT hold_authorise_v1(%(wallet)s, 900, 'hold', now() + interval '1 day', 'room-of-ana', 'A room for Ana')",
    "SELECT hold_capture_v1(%(wallet)s, (SELECT id FROM holds), 400, 'capture')",
    "SELECT order_place_v1(%(member)s, %(currency)s, %(items)s, 'kept')",
    "SELECT order_place_v1(%(member)s, %(currency)s, %(items)s, 'returned')",
    "SELECT order_cancel_v1(%(member)s, (SELECT id FROM orders WHERE idempotency_key = 'returned'), 'cancelled')",
    "SELECT openings_post_v3(%(source)s, %(currency)s, true)",
    """SELECT wallet_post_many_v3(jsonb_build_array(jsonb_build_object('wallet_id', %(wallet)s::uuid, 'type', 'deposit',
        'amount_minor', 100, 'idempotency_key', 'bulk-of-ana')), %(admin)s, 'batch', true, 'bulk-of-ana')""",
    "SELECT document_request_v1(%(wallet)s, %(member)s, '2000-01-01Z', '2100-01-01Z', 9)",
    "SELECT document_claim_v1()",
    "SELECT document_end_v1((SELECT id FROM documents), 1, 'Statement of Ana Horvat', NULL)",
    "SELECT webhook_create_v1('https://localhost/hook', NULL, '{}', 'thin', 'wallet')",
    "SELECT webhook_tested_v1(id, gen_random_uuid(), 'x', 'failed', 500, NULL, 1, 'no') FROM webhook_endpoints",
    "SELECT events_stamp_v1(1)",
    "SELECT webhook_replay_v1((SELECT id FROM webhook_endpoints), 0, 1, '{}')",
    "SELECT webhook_claim_v1('9f2c1f6e-0d52-4b43-8a51-5b9a3f0e7c11', 90)",
    """SELECT webhook_settle_v1(id, lease_by, 0, jsonb_build_object('feed_id', feed_id, 'delivered', 0, 'failures', 1,
        'is_failing', true, 'pause_seconds', 0, 'replays', '[]'::jsonb, 'attempts', '[]'::jsonb,
        'unparked', '[]'::jsonb,
        'parked', jsonb_build_array(jsonb_build_object('event_id', gen_random_uuid(), 'type', 'x', 'position', 1)),
        'lanes', jsonb_build_array(jsonb_build_object('key', %(wallet)s::uuid, 'is_ordered', true, 'position', 1,
            'attempts', 1, 'delay_seconds', 5)))) FROM webhook_endpoints""",
    "SELECT event_cursor_take_v1('broker', gen_random_uuid(), 0)",
    """SELECT command_run_v1('/shop', 'order-of-ana', 'payment', 'f', gen_random_uuid(), NULL, '{}', jsonb_build_object(
        'actor_kind', 'api_key', 'actor_id', gen_random_uuid()), 'wallet_not_found', NULL, NULL)""",
    """SELECT audit_refused_v1(jsonb_build_object('action', 'wallet.deposit', 'actor_id', %(member)s::uuid,
        'actor_kind', 'user', 'refusal', 'admin_required'))""",
    """SELECT audit_note_v1(jsonb_build_object('action', 'look', 'actor_id', %(admin)s::uuid, 'address', '203.0.113.77',
        'subject', 'Ana Horvat', 'after', jsonb_build_object('name', 'Ana Horvat')))""",
)


# As the prover leaves them, which writes a row of `shared` too.
_PROOFS = (
    "INSERT INTO {0}.wallet_proofs (wallet_id, seq, hash) SELECT id, last_seq, last_hash FROM {0}.wallets",
    "INSERT INTO {0}.proof_progress DEFAULT VALUES",
    "INSERT INTO {0}.proof_findings (kind, subject, finding) VALUES ('hold', 'x', 'A finding about Ana.')",
)


def destination(database: Database) -> Destination:
    return Destination(
        engine=database.admin_engine(),
        migrations=MIGRATIONS,
        backup_policy=BACKUP_POLICY,
        tenant_secret=database.tenant_secret,
        reserved_slugs=RESERVED_SLUGS,
    )


def take(database: Database, slug: str, folder: Path, *sealed_for: str) -> Bundle:
    options = BackupOptions(folder=folder / uuid4().hex, sealed_for=sealed_for)
    return open_bundle(back_up(source_of(database), slug, options).folder, KEYS)


def rewritten(bundle: Bundle, table: str, change: Callable[[bytes], bytes], keys: BundleKeys = KEYS) -> Bundle:
    """A forged bundle: other rows of one table, and a manifest that matches them and is signed with the keys."""
    manifest = bundle.manifest
    (file,) = (each for each in manifest.tables if each.name == table)
    lines = [change(line) for line in bundle.lines(file)]
    (bundle.folder / file.file).unlink()
    written = write_rows(filter(None, lines), bundle.folder, file.file, name=table, columns=file.columns)
    tables = tuple(written if each is file else each for each in manifest.tables)
    forge(bundle, replace(manifest, tables=tables), keys)
    return open_bundle(bundle.folder, KEYS, accepts_foreign=True)


def forge(bundle: Bundle, manifest: Manifest, keys: BundleKeys = KEYS) -> None:
    write_manifest(bundle.folder, manifest.to_json(), keys)


def content(database: Database, slug: str) -> dict[str, list[str]]:
    """All rows of all the tenant's tables, as text."""
    return content_of(database, database.tenant(slug).schema_name)


def content_of(database: Database, schema_name: str) -> dict[str, list[str]]:
    reader = database.as_superuser()
    tables = reader.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", (schema_name,))
    rows = sql.SQL("SELECT t::text FROM {} t ORDER BY 1")
    return {
        name: [row for (row,) in reader.execute(rows.format(sql.Identifier(schema_name, name)))]
        for (name,) in tables.fetchall()
    }


def without_log(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """The content without the audit log, which has an entry for the restore itself, and without the id of the feed,
    which is another one, and what stops webhooks. Nothing else may differ.
    """
    kept = {name: rows for name, rows in found.items() if name not in {"audit_log", "audit_chain"}}
    of_feed = ("events_head", "webhook_endpoints")
    told = {name: [re.sub(r"[0-9a-f-]{36}", "id", row) for row in kept.get(name, [])] for name in of_feed}
    stopped = [re.sub(r"disabled,restored,[^,]+", "enabled,,", row) for row in told["webhook_endpoints"]]
    return kept | told | {"webhook_endpoints": stopped}


def post(database: Database, furnished: Furnished, amount_minor: int) -> None:
    statement = "SELECT wallet_post_v2(%s, 'deposit', %s, gen_random_uuid()::text, NULL, NULL, NULL, NULL, NULL, NULL)"
    database.as_tenant(SLUG).execute(statement, (furnished.wallet_id, amount_minor))


def balance(database: Database, slug: str, wallet_id: UUID) -> int:
    query = "SELECT balance_minor FROM wallets WHERE id = %s"
    ((found,),) = database.as_tenant(slug).execute(query, (wallet_id,))
    return int(found)


def audit(database: Database, slug: str) -> list[tuple[Any, ...]]:
    return database.as_tenant(slug).execute("SELECT * FROM ledger_audit_v5()").fetchall()


def world(database: Database) -> dict[str, Any]:
    """Everything that a failed restore must leave unchanged: schemas, roles, people and the registry."""
    superuser = database.as_superuser()
    questions = {
        "schemas": "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1",
        "roles": "SELECT rolname, rolcanlogin FROM pg_roles ORDER BY 1",
        "people": "SELECT * FROM shared.users ORDER BY id",
        "members": "SELECT * FROM shared.memberships ORDER BY 1, 2",
        "tenants": "SELECT * FROM shared.tenants ORDER BY id",
        "retired": "SELECT schema_name, reason FROM shared.spare_schemas ORDER BY 1",
        "rights": "SELECT oid::regclass::text, relacl FROM pg_class WHERE relnamespace::regnamespace::text ~ '_schema'",
        "triggers": "SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE tgenabled <> 'O'",
    }
    return {name: superuser.execute(question.encode()).fetchall() for name, question in questions.items()}


def change_proof(bundle: Bundle) -> None:
    forge(bundle, replace(bundle.manifest, proof={**bundle.manifest.proof, "wallets": []}))
