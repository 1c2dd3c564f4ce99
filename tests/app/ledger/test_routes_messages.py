"""How many exchanges with PostgreSQL a payment and a read of the wallet make, counted in libpq's own trace. It needs no
quiet machine.
"""

from collections.abc import Callable
from typing import Any

from flask import Flask

from tenant_schemas.flask import EXTENSION
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.messages import sent_by
from tests.factories.people import People, Person

ONE_STATEMENT = ["Bind", "Describe", "Execute", "Sync"]


def exchanges_of(app: Flask, database: Database, call: Callable[[], Any]) -> dict[str, list[list[str]]]:
    """The names of the messages of each exchange of one call, on the shared side and on the tenant's. Earlier calls
    prepare its statements.
    """
    own = app.extensions[EXTENSION]
    for _ in range(8):
        call()
    with sent_by(own.shared) as shared, sent_by(own.engine(database.tenant("eur"))) as tenant:
        call()
    return {
        side: [[message.split("\t")[0] for message in exchange] for exchange in exchanges]
        for side, exchanges in (("shared", shared), ("tenant", tenant))
    }


def payer(people: People) -> Person:
    person = people.make(eur="member")
    people.wallet(person, "eur", balance_minor=100_000)
    return person


def test_a_payment_is_one_statement_of_its_tenant_and_at_most_one_of_the_shared_side(
    app: Flask, api: Api, people: People, database: Database
) -> None:
    person = payer(people)

    def pay() -> None:
        assert api.post("/api/wallet/payments", person, "eur", json={"amount": "0.01"}).status_code == 201

    found = exchanges_of(app, database, pay)
    assert found["tenant"] == [ONE_STATEMENT]
    assert found["shared"] in ([], [ONE_STATEMENT])


def test_a_read_of_the_wallet_is_one_statement_of_its_tenant(
    app: Flask, api: Api, people: People, database: Database
) -> None:
    person = payer(people)
    found = exchanges_of(app, database, lambda: api.get("/api/wallet", person, "eur"))
    assert found == {"shared": [ONE_STATEMENT], "tenant": [ONE_STATEMENT]}


def test_a_page_of_the_ledger_is_only_plain_reads(app: Flask, api: Api, people: People, database: Database) -> None:
    """No BEGIN and no COMMIT, which are Query messages."""
    person = payer(people)
    found = exchanges_of(app, database, lambda: api.get("/api/wallet/transactions", person, "eur"))
    assert found["shared"] == [ONE_STATEMENT]
    assert found["tenant"]
    assert all(exchange == ONE_STATEMENT for exchange in found["tenant"])
