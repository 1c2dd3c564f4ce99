"""The model and the real service side by side: each step runs in both, and the results are compared."""

from typing import Any, ClassVar

from hypothesis import event
from hypothesis.stateful import RuleBasedStateMachine

from tests.app.model.books import Books
from tests.app.model.real import TENANTS, RealTenant, written
from tests.app.model.wallet import Refused, Wallet

# Prices of products.
PRICES = {"tea": {"EUR": 7, "JPY": 9, "BAM": 11}, "coffee": {"EUR": 20, "BAM": 35}}
# A tenant, one of its members, a currency: there is a wallet for each.
Slot = tuple[str, int, str]


class Comparison(RuleBasedStateMachine):
    """Both tenants, in the model and for real. Each run begins with empty books."""

    real: ClassVar[dict[str, RealTenant]]

    def __init__(self) -> None:
        super().__init__()
        self.books = {slug: Books(PRICES) for slug in TENANTS}
        self.wallets: list[tuple[str, str]] = []  # tenant and id
        self.sent: list[tuple[str, str, list[Any]]] = []  # requests with a key: tenant, verb, arguments
        self.keys = 0
        self.seen: dict[str, dict[str, str]] = {}  # wallets as they were shown last
        for tenant in self.real.values():
            tenant.empty()

    def do(self, slug: str, verb: str, *arguments: Any) -> None:
        """Run a step in the model and in the service, and compare."""
        expected = attempt(self.books[slug], verb, arguments)
        event(verb, expected if isinstance(expected, str) else "")
        actual = attempt(self.real[slug], verb, arguments)
        assert actual == expected
        self.compare(slug)

    def send(self, slug: str, verb: str, *arguments: Any) -> None:
        """Run a step with a key, and remember the request."""
        self.sent.append((slug, verb, list(arguments)))
        self.do(slug, verb, *arguments)

    def compare(self, touched: str) -> None:
        """The invariants after a step in a tenant."""
        for slug, tenant in self.real.items():
            before, now = tenant.picture.rows, tenant.look().rows
            assert slug == touched or now == before, "the other tenant has changed"
        books, tenant, picture = self.books[touched], self.real[touched], self.real[touched].picture
        assert picture.wallets == books.wallets
        assert picture.orders == books.orders
        assert picture.paid == books.paid
        assert picture.policies == books.policies
        assert picture.trial_balance == books.trial_balance()
        assert sum(debit - credit for debit, credit in picture.trial_balance.values()) == 0
        for id_, wallet in books.wallets.items():
            assert picture.splits[id_] == (wallet.deposit, wallet.credit_used)
            assert picture.entries[id_] == [[movement.entry] for movement in wallet.movements]
            if self.seen.get(id_) != shown(wallet):
                self.seen[id_] = tenant.show(id_)
                assert self.seen[id_] == shown(wallet)
        assert tenant.audit() == []
        assert tenant.audit_events() == []

    def teardown(self) -> None:
        """The feed tells of the movements that the model has, and of no others."""
        for slug, id_ in self.wallets:
            wallet = self.books[slug].wallets[id_]
            assert self.real[slug].events(id_) == [
                (f"wallet.{each.type}.posted.v1", each.number, written(each.balance_after, wallet.currency))
                for each in wallet.movements
            ]

    def open(self, slot: Slot) -> None:
        """Opening a wallet again opens none."""
        slug, member, currency = slot
        wallet = self.real[slug].open(member, currency)
        self.books[slug].open(wallet, currency)
        if (slug, wallet) not in self.wallets:
            self.wallets.append((slug, wallet))
        self.compare(slug)

    def key(self) -> str:
        """An unused key."""
        self.keys += 1
        return f"key-{self.keys}"


def attempt(tenant: Books | RealTenant, verb: str, arguments: tuple[Any, ...]) -> Any:
    """The answer, or the name of the refusing rule. A refusal changes nothing, as compare() checks."""
    try:
        return getattr(tenant, verb)(*arguments)
    except Refused as refusal:
        return f"refused: {refusal}"


def shown(wallet: Wallet) -> dict[str, str]:
    amounts = {
        "balance": wallet.balance,
        "depositBalance": wallet.deposit,
        "creditLimit": wallet.limit,
        "creditUsed": wallet.credit_used,
        "held": wallet.held,
        "available": wallet.available,
    }
    told = {name: written(amount, wallet.currency) for name, amount in amounts.items()}
    return told | {"currency": wallet.currency, "status": wallet.status}
