from tenant_schemas.testing import Database, assert_isolated
from tests.factories.api import Api
from tests.factories.people import People


def test_two_wallets(api: Api, people: People) -> None:
    person = people.make(eur="member", km="member")
    people.wallet(person, "eur", balance_minor=500, credit_limit_minor=100)
    assert api.get("/api/wallet", person, "eur").json["available"] == "6.00"
    assert api.get("/api/km/wallet", person).json["currency"] == "BAM"


def test_isolated(fresh_database: Database) -> None:
    assert_isolated(fresh_database, "eur", "km")
    assert_isolated(fresh_database, "km", "eur")
