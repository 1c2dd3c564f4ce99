"""One wallet as a finance person would write it down. The rules of the verbs are in books.py.

Amounts are whole numbers of the currency's minor unit. A movement's amount is signed by its effect on the balance.
"""

from dataclasses import dataclass, field, replace
from typing import Any

# What a movement is booked against.
COUNTER_ACCOUNT = {
    "deposit": "cash",
    "payment": "sales",
    "refund": "sales",
    "adjustment": "adjustments",
    "opening": "opening_balances",
}


class Refused(Exception):
    """A refusal; its argument is the rule's name."""


def refuse_if(broken: bool, code: str) -> None:
    if broken:
        raise Refused(code)


def of_staff(key: str) -> str:
    """A key as the staff's own: the same text of the member is another key."""
    return f"staff: {key}"


@dataclass(frozen=True)
class Movement:
    """A line of a wallet's history. A refund names its payment by number, a capture its hold."""

    number: int
    type: str
    amount: int
    balance_after: int
    order: str | None = None
    refund_of: int | None = None
    hold: int | None = None

    @property
    def entry(self) -> tuple[str, str, int]:
        """Debit, credit, amount. A wallet is money owed to its member: it grows on the credit side."""
        other = COUNTER_ACCOUNT[self.type]
        return (other, "wallets", self.amount) if self.amount > 0 else ("wallets", other, -self.amount)


@dataclass(frozen=True)
class Receipt:
    """The answer to a movement: after a refund also the remaining refundable amount."""

    movement: Movement
    refundable: int | None = None
    replayed: bool = False


@dataclass
class Hold:
    amount: int
    order: str | None
    captured: int = 0
    status: str = "active"

    @property
    def left(self) -> int:
        return self.amount - self.captured


@dataclass(frozen=True)
class Authorised:
    """The answer to an authorised hold, however often it is repeated."""

    hold: int
    amount: int
    replayed: bool = False


@dataclass
class Order:
    wallet: str
    total: int
    payment: int
    status: str = "paid"
    refund: int | None = None


@dataclass
class Wallet:
    """One member's money in one currency, and its whole history."""

    currency: str
    limit: int = 0
    balance: int = 0
    status: str = "active"
    version: int = 1
    movements: list[Movement] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    # Each key belongs to one request of its caller, with one answer, for ever; see of_staff().
    keys: dict[str, tuple[Any, Receipt]] = field(default_factory=dict, compare=False, repr=False)
    hold_keys: dict[str, tuple[Any, Authorised]] = field(default_factory=dict, compare=False, repr=False)
    cancel_keys: dict[str, int] = field(default_factory=dict, compare=False, repr=False)  # the order that was cancelled

    @property
    def deposit(self) -> int:
        return max(self.balance, 0)

    @property
    def credit_used(self) -> int:
        return max(-self.balance, 0)

    @property
    def held(self) -> int:
        return sum(hold.left for hold in self.holds if hold.status == "active")

    @property
    def available(self) -> int:
        return self.balance + self.limit - self.held

    def payments(self) -> list[Movement]:
        return [movement for movement in self.movements if movement.type == "payment"]

    def refundable(self, payment: Movement) -> int:
        given_back = sum(movement.amount for movement in self.movements if movement.refund_of == payment.number)
        return -payment.amount - given_back

    def answered(self, key: str, request: Any) -> Receipt | None:
        """The earlier answer to this request; its key is refused to any other request."""
        known = self.keys.get(key)
        refuse_if(key in self.hold_keys, "idempotency_key_reused")
        refuse_if(known is not None and known[0] != request, "idempotency_key_reused")
        return replace(known[1], replayed=True) if known else None

    def check(self, type_: str, amount: int) -> None:
        refuse_if(self.status == "closed", "wallet_closed")
        refuse_if(self.status == "frozen" and type_ == "payment", "wallet_frozen")
        refuse_if(amount < 0 and self.available + amount < 0, "insufficient_funds")

    def write(self, key: str, request: Any, type_: str, amount: int, **more: Any) -> Receipt:
        left = more.pop("refundable", None)
        self.balance += amount
        receipt = Receipt(Movement(len(self.movements) + 1, type_, amount, self.balance, **more), left)
        self.movements.append(receipt.movement)
        self.keys[key] = (request, receipt)
        return receipt
