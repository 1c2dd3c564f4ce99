"""On a server current.sql makes the same objects as the revisions, and each object that differs is named."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from scripts.support import scratch_installation
from scripts.support.current_sql import proof
from scripts.support.current_sql.files import current_path, current_sql
from scripts.support.current_sql.proof import differing_objects
from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.schema_diff.catalog import fingerprints_of
from tenant_schemas.schema_diff.reference import store_fingerprint, stored_fingerprint
from tenant_schemas.tenant import Tenant
from tests.factories.histories import add_revision, copied_histories

Installation = tuple[sa.Engine, Tenant, Migrations]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The histories with four more revisions: an extension in `shared`, two with every statement that can be folded,
    one in Python.
    """
    histories = copied_histories(tmp_path_factory.mktemp("histories"))
    add_revision(histories, "op.execute('CREATE EXTENSION pg_trgm SCHEMA shared')", history=History.SHARED)
    for name in ("makes_everything.sql", "changes_everything.sql"):
        text = (HERE / name).read_text(encoding="utf-8").replace(":", "\\:")
        add_revision(histories, f"op.execute({text!r})")
    rows = "op.get_bind().exec_driver_sql('INSERT INTO credit_policies VALUES (%s, 0, NULL)', ('EUR',))"
    add_revision(histories, rows, runs_python=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch_installation, "MIGRATIONS", histories)
        with scratch_installation.scratch_installation() as (engine, tenant):
            yield engine, tenant, histories


def found(installation: Installation, history: History) -> list[str]:
    engine, tenant, histories = installation
    with engine.begin() as connection:
        return differing_objects(connection, histories, history, tenant)


@pytest.mark.parametrize("history", History)
def test_the_same_objects_are_made(installation: Installation, history: History) -> None:
    assert found(installation, history) == []


def test_nothing_is_left_of_the_proof(installation: Installation) -> None:
    engine, tenant, _ = installation
    query = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1"
    with engine.begin() as connection:
        before = fingerprints_of(connection, [tenant]), connection.exec_driver_sql(query).scalars().all()
    for history in History:
        found(installation, history)
    with engine.begin() as connection:
        assert before == (fingerprints_of(connection, [tenant]), connection.exec_driver_sql(query).scalars().all())


def test_the_noted_fingerprint_does_not_depend_on_the_file(installation: Installation) -> None:
    engine, _, histories = installation
    head = histories.head(History.TENANT)
    with engine.connect() as connection:
        store_fingerprint(connection, histories, head, "noted")
        current_path(histories, History.TENANT).write_text("-- Other text.\n", encoding="utf-8")
        assert stored_fingerprint(connection, histories, head) == "noted"


EDITS = {
    "constraint ledger_entries.ledger_entries_entry_no_positive": ("entry_no > 0", "entry_no > 1"),
    "function wallet_post_v4(": ("-- Only hold_capture_v1 gets by", "-- Only it gets by"),
    "trigger audit_log.audit_log_chain": ("audit_log_chain BEFORE INSERT", "audit_log_chain AFTER INSERT"),
    "column wallets.last_seq": ("last_seq           bigint      NOT NULL DEFAULT 0", "last_seq bigint NOT NULL"),
    "rights on relation order_payments": ("order_payments, orders,'", "orders,'"),
    "policy users.users_for_app": (
        "users_for_app ON shared.users TO wallet_app",
        "users_for_app ON shared.users TO PUBLIC",
    ),
    "relation member_directory": (
        "coalesce(m.name, u.name) AS name, m.role",
        "coalesce(u.name, m.name) AS name, m.role",
    ),
    "relation spare_schemas": ("ALTER TABLE shared.spare_schemas ENABLE ROW LEVEL SECURITY;", ""),
}


@pytest.mark.parametrize("named", EDITS)
def test_an_object_that_is_made_otherwise_is_named(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    old, new = EDITS[named]
    texts = {history: current_sql(installation[2], history) for history in History}
    (history,) = [history for history, text in texts.items() if text.count(old) == 1]
    monkeypatch.setattr(proof, "current_sql", lambda *_: texts[history].replace(old, new))
    (difference,) = found(installation, history)
    assert difference.startswith(named)
    assert difference.endswith(("the revisions make it otherwise", "only the revisions make it"))


def test_objects_that_one_side_alone_makes_are_named(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = current_sql(installation[2], History.TENANT).replace("INDEX audit_log_at_seq_idx", "INDEX audit_log_new_idx")
    monkeypatch.setattr(proof, "current_sql", lambda *_: text)
    assert found(installation, History.TENANT) == [
        "index audit_log_at_seq_idx: only the revisions make it",
        "index audit_log_new_idx: the revisions do not make it",
    ]


def test_a_text_that_postgresql_refuses_is_told_with_its_reason(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "current_sql", lambda *_: "CREATE VIEW v AS SELECT 1 FROM nowhere;")
    (refused,) = found(installation, History.TENANT)
    assert refused.startswith('PostgreSQL does not run it: relation "nowhere" does not exist')
    assert found(installation, History.SHARED) == [refused]
