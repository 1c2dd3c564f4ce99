"""A route with an SQL injection hole, made for this test: the reach of injected SQL, in both login modes.

The hole is of the worst kind: text from the request is part of the statement, which has no parameters, and the response
contains PostgreSQL's answer. docs/architecture/security.md describes the attacks tried here.
"""

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from flask import Flask, request

from app import create_app
from app.auth.access import Access, access
from app.db import db
from tenant_schemas.flask import EXTENSION
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for
from tests.factories.api import Api
from tests.factories.people import People, Person

PAIRS = pytest.mark.parametrize(("slug", "other"), [("eur", "km"), ("km", "eur")])
REFUSED, SYNTAX = "42501", "42601"


def hole() -> tuple[str, int]:
    wanted = request.args["code"]
    try:
        rows = db.session.connection().exec_driver_sql(f"SELECT code FROM ledger_accounts WHERE code = '{wanted}'")
        return "\n".join(str(row[0]) for row in rows), 200
    except sa.exc.DBAPIError as error:
        return str(getattr(error.orig, "sqlstate", None)), 500


def shared_hole() -> tuple[str, int]:
    wanted = request.args["name"]
    try:
        rows = db.session.connection().exec_driver_sql(f"SELECT name FROM shared.users WHERE name = '{wanted}'")
        return "\n".join(str(row[0]) for row in rows), 200
    except sa.exc.DBAPIError as error:
        return str(getattr(error.orig, "sqlstate", None)), 500


@pytest.fixture(scope="module")
def app(database: Database, tenant_logins: str) -> Iterator[Flask]:
    """The application with the two holes. It has few connections, so that each connection serves both tenants
    in turn.
    """
    app = create_app(settings_for(database, tenant_logins=tenant_logins, max_connections=3))
    for path, view, who in (
        ("/api/wallet/hole", hole, Access.MEMBER),
        ("/api/me/hole", shared_hole, Access.USER),
    ):
        view.__dict__["reads_query"] = True
        app.add_url_rule(path, view_func=access(who)(view))
    yield app
    app.extensions[EXTENSION].close()


@pytest.fixture(scope="module")
def victim(app: Flask) -> Person:
    """A member of both tenants, with one cent in each wallet."""
    people = People(app)
    person = people.make(eur="member", km="member", password_hash="a secret hash")
    for slug in ("eur", "km"):
        people.wallet(person, slug, balance_minor=1)
    return person


def inject(app: Flask, person: Person, slug: str, sql: str) -> tuple[int, str]:
    answer = Api(app).get("/api/wallet/hole", person, slug, query_string={"code": sql})
    return answer.status_code, answer.get_data(as_text=True)


def assert_unchanged(app: Flask, person: Person) -> None:
    """Every connection is unchanged: a request still sees its own tenant's wallet."""
    for slug in ("eur", "km", "eur", "km"):
        answer = Api(app).get("/api/wallet", person, slug)
        assert (answer.status_code, answer.json["tenantId"]) == (200, slug)


@PAIRS
def test_the_hole_is_one(app: Flask, victim: Person, slug: str, other: str) -> None:
    assert inject(app, victim, slug, "cash")[1] == "cash"
    assert inject(app, victim, slug, "x' UNION SELECT current_user::text --") == (200, f"tenant_{slug}")
    everything = inject(app, victim, slug, f"x' UNION SELECT id::text FROM {slug}_schema.wallets --")
    assert len(everything[1].splitlines()) >= 1


CROSSINGS = {
    "by its name": ("x' UNION SELECT id::text FROM {other}_schema.wallets --", REFUSED),
    "by its members": ("x' UNION SELECT password_hash FROM shared.users --", REFUSED),
    "by a second statement": ("x'; SET ROLE tenant_{other}; SELECT '1", SYNTAX),
    "by a second statement that commits": ("x'; COMMIT; SET ROLE tenant_{other}; SELECT '1", SYNTAX),
    "by set_config": ("x' UNION SELECT set_config('role', 'tenant_{other}', true) --", REFUSED),
    "by set_config for the session": ("x' UNION SELECT set_config('role', 'tenant_{other}', false) --", REFUSED),
    "by set_config of the path": ("x' UNION SELECT set_config('search_path', '{other}_schema', false) --", REFUSED),
    "by ts_stat": (
        "x' UNION SELECT word FROM ts_stat('SELECT to_tsvector(id::text) FROM {other}_schema.wallets') --",
        REFUSED,
    ),
    "by ts_stat with set_config": (
        "x' UNION SELECT word FROM ts_stat('SELECT to_tsvector(set_config(''role'', ''tenant_{other}'', true))') --",
        REFUSED,
    ),
    "by query_to_xml": (
        "x' UNION SELECT query_to_xml('SELECT * FROM {other}_schema.wallets', true, true, '')::text --",
        REFUSED,
    ),
    "by SET in query_to_xml": (
        "x' UNION SELECT query_to_xml('SET ROLE tenant_{other}', true, true, '')::text --",
        "0A000",
    ),
    "by schema_to_xml": ("x' UNION SELECT schema_to_xml('{other}_schema', true, true, '')::text --", REFUSED),
    "by its function": ("x' UNION SELECT wallet_id::text FROM {other}_schema.ledger_audit_v5() --", REFUSED),
    "by a file": ("x' UNION SELECT pg_read_file('postgresql.conf') --", REFUSED),
    "by a large object": ("x' UNION SELECT lo_create(0)::text --", REFUSED),
    "by the catalogue of settings": (
        "x' UNION SELECT setting FROM pg_settings WHERE set_config('role', 'none', false) IS NOT NULL --",
        REFUSED,
    ),
    "by stopping its connections": (
        "x' UNION SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE usename = 'wallet_app' --",
        REFUSED,
    ),
}


@pytest.mark.parametrize("attack", CROSSINGS)
@PAIRS
def test_no_injected_sql_crosses(app: Flask, victim: Person, slug: str, other: str, attack: str) -> None:
    text, sqlstate = CROSSINGS[attack]
    assert inject(app, victim, slug, text.replace("{other}", other)) == (500, sqlstate)
    assert_unchanged(app, victim)


@PAIRS
def test_what_was_crossed_by_other_means_is_not_in_the_answer(
    app: Flask, database: Database, victim: Person, slug: str, other: str
) -> None:
    """database_to_xml shows the tables that the role may read: one tenant's."""
    status, said = inject(app, victim, slug, "x' UNION SELECT database_to_xml(true, true, '')::text --")
    query = f"SELECT id FROM {other}_schema.wallets WHERE user_id = %s"
    ((wallet_id,),) = database.as_superuser().execute(query.encode(), (victim.user_id,)).fetchall()
    assert str(wallet_id) not in said
    assert status in {200, 500}
    assert_unchanged(app, victim)


@PAIRS
def test_history_stays_what_it_was(app: Flask, victim: Person, slug: str, other: str) -> None:
    for attack in (
        "x' UNION (WITH d AS (DELETE FROM wallet_transactions RETURNING 1) SELECT '1') --",
        "x'; DELETE FROM wallet_transactions; SELECT '1",
        "x' UNION SELECT query_to_xml('DELETE FROM wallet_transactions', true, true, '')::text --",
        "x' UNION SELECT query_to_xml('UPDATE wallets SET balance_minor = 9', true, true, '')::text --",
    ):
        status, said = inject(app, victim, slug, attack)
        assert (status, said) in {(500, REFUSED), (500, SYNTAX), (500, "0A000")}, said
    assert_unchanged(app, victim)


@PAIRS
def test_known_and_open_money_of_the_same_tenant_can_be_moved_and_every_move_is_in_the_ledger(
    app: Flask, database: Database, people: People, slug: str, other: str
) -> None:
    """An injection has the service's privileges in this one tenant: it may post. It can't hide the posting."""
    person = people.make(**{slug: "member"})
    wallet_id: UUID = people.wallet(person, slug, balance_minor=100)
    call = f"wallet_post_v2('{wallet_id}', 'payment', 5, '{uuid4()}', NULL, NULL, NULL, NULL, NULL, NULL)"
    assert inject(app, person, slug, f"x' UNION SELECT (p.posted).amount_minor::text FROM {call} p --") == (200, "-5")
    connection = database.as_tenant(slug)
    query = "SELECT amount_minor FROM wallet_transactions WHERE wallet_id = %s ORDER BY seq DESC LIMIT 1"
    assert connection.execute(query, (wallet_id,)).fetchone() == (-5,)


SHARED_ATTACKS = {
    "a tenant's money": "x' UNION SELECT id::text FROM eur_schema.wallets --",
    "a tenant's role": "x' UNION SELECT set_config('role', 'tenant_eur', true) --",
    "a file": "x' UNION SELECT pg_read_file('postgresql.conf') --",
}


@pytest.mark.parametrize("attack", SHARED_ATTACKS.values(), ids=SHARED_ATTACKS.keys())
def test_from_the_shared_side_no_money_is_reached(app: Flask, victim: Person, attack: str) -> None:
    answer = Api(app).get("/api/me/hole", victim, query_string={"name": attack})
    assert (answer.status_code, answer.text) == (500, REFUSED)
    assert_unchanged(app, victim)


def test_known_and_open_the_shared_side_reads_password_hashes(app: Flask, victim: Person) -> None:
    """The service verifies passwords on the shared side."""
    attack = f"{uuid4().hex}' UNION SELECT password_hash FROM shared.users WHERE id = '{victim.user_id}' --"
    answer = Api(app).get("/api/me/hole", victim, query_string={"name": attack})
    assert answer.text == "a secret hash"
