"""The catalogue is loaded from a file completely or not at all, and every fault is reported with its place."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result

from scripts import load_catalogue as script
from scripts.load_catalogue import CatalogueFaulty, Loaded, load_catalogue
from scripts.seed_demo import CATALOGUE
from tenant_schemas.testing.plugin import Database
from tests.conftest import SIGNING_KEYS


def entry(sku: str, **told: Any) -> dict[str, Any]:
    return {"sku": sku, "name": "Atlas", "category": "books", "prices": {"EUR": "12.50"}} | told


def books(*products: dict[str, Any]) -> dict[str, Any]:
    return {"categories": [{"code": "books", "name": "Books"}], "products": list(products)}


def prices_of(database: Database, sku: str) -> dict[str, int]:
    query = (
        "SELECT r.currency, r.price_minor FROM shared.products p JOIN shared.product_prices r ON r.product_id = p.id"
    )
    return dict(database.as_superuser().execute(f"{query} WHERE p.sku = %s".encode(), (sku,)).fetchall())


def product(database: Database, sku: str) -> tuple[UUID, str, str | None, str] | None:
    query = "SELECT id, name, description, status FROM shared.products WHERE sku = %s"
    return database.as_superuser().execute(query, (sku,)).fetchone()  # type: ignore[return-value]


@pytest.fixture
def sku() -> str:
    return f"sku-{uuid4().hex}"


def test_a_loading_makes_what_is_missing_in_the_minor_units_of_each_currency(database: Database, sku: str) -> None:
    prices = {"EUR": "12.50", "JPY": "2100", "KWD": "1.005"}
    told = books(entry(sku, description="With maps", prices=prices))
    assert load_catalogue(database.admin_engine(), told) == Loaded(1, 1, 3, 0)
    assert prices_of(database, sku) == {"EUR": 1250, "JPY": 2100, "KWD": 1005}
    made = product(database, sku)
    assert made is not None
    assert made[1:] == ("Atlas", "With maps", "active")


def test_a_loading_changes_what_is_there_and_keeps_its_id_and_what_is_not_named(database: Database, sku: str) -> None:
    engine = database.admin_engine()
    other = f"{sku}-other"
    load_catalogue(engine, books(entry(sku, prices={"EUR": "1", "BAM": "2", "JPY": "3"}), entry(other)))
    before = product(database, sku)
    changed = entry(sku, name="New", status="withdrawn", prices={"EUR": "9.99", "JPY": None, "KWD": None})
    assert load_catalogue(engine, books(changed)) == Loaded(1, 1, 1, 2)
    after = product(database, sku)
    assert before is not None
    assert after == (before[0], "New", None, "withdrawn")
    assert prices_of(database, sku) == {"EUR": 999, "BAM": 200}
    assert prices_of(database, other) == {"EUR": 1250}


def test_a_category_is_known_by_its_code_and_may_be_named_without_being_told_again(
    database: Database, sku: str
) -> None:
    engine = database.admin_engine()
    load_catalogue(engine, {"categories": [{"code": sku, "name": "Old"}]})
    load_catalogue(engine, {"categories": [{"code": sku, "name": "New"}]})
    load_catalogue(engine, {"products": [entry(sku, category=sku)]})
    query = "SELECT c.name FROM shared.categories c JOIN shared.products p ON p.category_id = c.id WHERE p.sku = %s"
    assert database.as_superuser().execute(query, (sku,)).fetchall() == [("New",)]


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no sku": ({"sku": None}, "products[1].sku: This field is needed."),
    "empty name": ({"name": " "}, "products[1].name: It must not be empty."),
    "number": ({"prices": {"EUR": 12.5}}, "products[1].prices.EUR: Send the amount as a string"),
    "not above zero": ({"prices": {"EUR": "0.00"}}, "products[1].prices.EUR: The amount must be above zero."),
    "too fine": ({"prices": {"JPY": "1.5"}}, "products[1] (faulty).prices.JPY: price: JPY has 0 fraction digits."),
    "too large": ({"prices": {"EUR": "92233720368547758.08"}}, "products[1] (faulty).prices.EUR: price: The largest"),
    "no currency": ({"prices": {"eur": "1.00"}}, "products[1] (faulty).prices.eur: "),
    "no currency to take away": ({"prices": {"XYZ": None}}, "products[1] (faulty).prices.XYZ: "),
    "status": ({"status": "gone"}, "products[1].status: Choose one of: active, withdrawn."),
    "unknown field": ({"colour": "red"}, "products[1].colour: There is no such field."),
    "category": ({"category": "nowhere"}, "products[1] (faulty).category: there is no category nowhere"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_its_place_and_nothing_is_loaded(database: Database, sku: str, fault: str) -> None:
    told, said = FAULTS[fault]
    with pytest.raises(CatalogueFaulty) as refused:
        load_catalogue(database.admin_engine(), books(entry(sku), entry("faulty") | told))
    assert str(refused.value).startswith(said)
    assert product(database, sku) is None


def test_all_faults_are_listed_together(database: Database) -> None:
    told = {
        "categories": [{"code": "Not A Code", "name": "x"}, 7],
        "products": [entry("a", name=None), entry("b", prices={"EUR": 1, "BAM": "-1.00"})],
    }
    with pytest.raises(CatalogueFaulty) as refused:
        load_catalogue(database.admin_engine(), told)
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == [
        *("categories[0].code", "categories[1]", "products[0].name", "products[1].prices.EUR"),
        "products[1].prices.BAM",
    ]


def test_what_is_there_twice_is_refused(database: Database, sku: str) -> None:
    told = books(entry(sku), entry(sku)) | {"categories": [{"code": "twice", "name": "x"}] * 2}
    with pytest.raises(CatalogueFaulty) as refused:
        load_catalogue(database.admin_engine(), told)
    assert str(refused.value).splitlines() == [
        "categories: twice occurs 2 times",
        f"products: {sku} occurs 2 times",
    ]


def test_a_large_catalogue_is_loaded_in_one_go(database: Database, sku: str) -> None:
    """In several batches, and each product gets its own prices."""

    def prices(number: int) -> dict[str, str]:
        return {"EUR": f"{number + 1}.00", "BAM": "2.00", "JPY": "3", "KWD": "4"}

    products = [entry(f"{sku}-{number}", prices=prices(number)) for number in range(2_500)]
    assert load_catalogue(database.admin_engine(), books(*products)).prices == 10_000
    assert prices_of(database, f"{sku}-2499") == {"EUR": 250_000, "BAM": 200, "JPY": 3, "KWD": 4000}


def run(database: Database, file: Path, *options: str) -> Result:
    environment = {
        "DATABASE_URL": database.app_url,
        "ADMIN_DATABASE_URL": database.admin_url,
        "TENANT_SECRET": "x" * 40,
        "SECRET_KEY": "y" * 40,
        "SIGNING_KEYS": SIGNING_KEYS,
    }
    return CliRunner().invoke(script.main, [str(file), *options], env=environment)


def test_the_script_says_what_it_loaded(database: Database, sku: str, tmp_path: Path) -> None:
    file = tmp_path / "catalogue.json"
    file.write_text(json.dumps(books(entry(sku))))
    said = run(database, file)
    assert (said.exit_code, said.output) == (0, "Loaded 1 categories, 1 products and 1 prices.\n")
    as_json = json.loads(run(database, file, "--json").output)
    assert as_json == {"categories": 1, "products": 1, "prices": 1, "pricesTakenAway": 0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"products": [\n  {"sku": "a",}\n]}', "line 2, column"),
        ('{"products": [], "products": []}', "the key 'products' occurs twice"),
        ("[]", "file: A JSON object is needed."),
        ("\udcff", "can't decode byte"),
    ],
)
def test_the_script_says_where_a_file_is_wrong_and_exits_with_2(
    database: Database, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "catalogue.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    result = run(database, file)
    assert result.exit_code == 2
    assert "nothing was loaded" in result.output
    assert said in result.output


def test_the_demos_catalogue_can_be_loaded_again_and_again(fresh_database: Database) -> None:
    for _ in range(2):
        assert load_catalogue(fresh_database.admin_engine(), CATALOGUE) == Loaded(2, 5, 11, 0)
    query = "SELECT currency, count(*) FROM shared.product_prices GROUP BY currency ORDER BY currency"
    counts = fresh_database.as_superuser().execute(query).fetchall()
    assert counts == [("BAM", 5), ("EUR", 5), ("JPY", 1)]
