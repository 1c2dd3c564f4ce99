"""The rules of the money as a finance person would write them: the effect of each verb, and its refusals.

It contains no SQL, no HTTP and no line of the service's code: test_model.py makes this model and the real service do
the same, and compares.
"""

from collections import Counter, defaultdict
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from tests.app.model.wallet import (
    COUNTER_ACCOUNT,
    Authorised,
    Hold,
    Order,
    Receipt,
    Refused,
    Wallet,
    of_staff,
    refuse_if,
)


@dataclass
class Books:
    """One tenant's wallets by id, and its policies."""

    prices: dict[str, dict[str, int]]  # of products, by currency
    wallets: dict[str, Wallet] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    paid: dict[str, tuple[str, int] | None] = field(default_factory=dict)  # orders, and the hold they are paid from
    policies: dict[str, tuple[int, int | None]] = field(default_factory=dict)  # default and highest limit, by currency
    bulks: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # requests, by key

    # Wallets and limits.

    def open(self, wallet: str, currency: str) -> None:
        default, _ = self.policies.get(currency, (0, None))
        self.wallets.setdefault(wallet, Wallet(currency, limit=default))

    def set_policy(self, currency: str, default: int, highest: int | None) -> None:
        self.policies[currency] = (default, highest)

    def configure(self, wallet: str, version: int, limit: int | None, status: str | None) -> None:
        """Change limit, status or both. A limit given before stays when the policy changes."""
        it = self.wallets[wallet]
        _, highest = self.policies.get(it.currency, (0, None))
        refuse_if(version != it.version, "version_mismatch")
        refuse_if(it.status == "closed", "wallet_closed")
        if limit is not None:
            refuse_if(it.balance + limit - it.held < 0, "credit_limit_below_used")
            refuse_if(highest is not None and limit > max(highest, it.limit), "credit_limit_above_policy")
        refuse_if(status == "closed" and (it.balance != 0 or it.held != 0), "wallet_not_empty")
        it.limit = it.limit if limit is None else limit
        it.status = status or it.status
        it.version += 1

    # Movements.

    def deposit(self, wallet: str, key: str, amount: int) -> Receipt:
        return self._post(wallet, of_staff(key), ("deposit", amount), "deposit", amount)

    def pay(self, wallet: str, key: str, amount: int, order: str | None, by_admin: bool) -> Receipt:
        key = of_staff(key) if by_admin else key
        return self._post(wallet, key, ("pay", amount, order, by_admin), "payment", -amount, order)

    def rehearse(self, wallet: str, key: str, amount: int, order: str | None, by_admin: bool) -> Receipt:
        """The answer to a payment now; nothing happens. It does not tell whether it is a repeat."""
        return replace(deepcopy(self).pay(wallet, key, amount, order, by_admin), replayed=False)

    def adjust(self, wallet: str, key: str, amount: int) -> Receipt:
        return self._post(wallet, of_staff(key), ("adjust", amount), "adjustment", amount)

    def opening(self, wallet: str, key: str, amount: int) -> Receipt:
        return self._post(wallet, key, ("opening", amount), "opening", amount)

    def refund(self, wallet: str, key: str, payment: int, amount: int | None) -> Receipt:
        """Refund a part of a payment, or without an amount the remaining amount; never more."""
        it, key = self.wallets[wallet], of_staff(key)
        request = ("refund", payment, amount)
        if answered := it.answered(key, request):
            return answered
        paid = next((movement for movement in it.payments() if movement.number == payment), None)
        if paid is None:
            raise Refused("payment_not_found")
        left = it.refundable(paid)
        amount = left if amount is None else amount
        refuse_if(amount > left or left == 0, "refund_exceeds_payment")
        it.check("refund", amount)
        return it.write(key, request, "refund", amount, order=paid.order, refund_of=payment, refundable=left - amount)

    def bulk(self, key: str, items: list[dict[str, Any]], atomic: bool) -> list[Any]:
        """Many deposits, payments and adjustments: atomic, or each on its own. Wallets follow in the order of their
        ids, and the items of a wallet in their own order: the first has the request's key, the others have it with
        their index. A key that the staff used for another bulk, or in a wallet for another request, refuses all. The
        key is part of the request.
        """
        after, answers, places = deepcopy(self), [None] * len(items), Counter[str]()
        refuse_if(after.bulks.setdefault(key, (items, atomic)) != (items, atomic), "idempotency_key_reused")
        for index in sorted(range(len(items)), key=lambda index: items[index]["wallet"]):
            wallet = items[index]["wallet"]
            item_key = f"{key}/{places[wallet]}" if places[wallet] else key
            answers[index] = after._bulk_item(of_staff(item_key), items[index], ("bulk", key, items, atomic), atomic)
            places[wallet] += 1
        vars(self).update(vars(after))
        return answers

    def _bulk_item(self, key: str, item: dict[str, Any], request: Any, atomic: bool) -> Any:
        if answered := self.wallets[item["wallet"]].answered(key, request):
            return answered
        try:
            amount = -item["amount"] if item["type"] == "payment" else item["amount"]
            return self._post(item["wallet"], key, request, item["type"], amount, item["order"])
        except Refused as refusal:
            if atomic:
                raise
            return str(refusal)

    def _post(  # noqa: PLR0917
        self, wallet: str, key: str, request: Any, type_: str, amount: int, order: str | None = None
    ) -> Receipt:
        it = self.wallets[wallet]
        if answered := it.answered(key, request):
            return answered
        it.check(type_, amount)
        self._claim(order, None)
        return it.write(key, request, type_, amount, order=order)

    def _claim(self, order: str | None, hold: tuple[str, int] | None) -> None:
        """An order is paid once: by one payment, or by the captures of one hold."""
        if order is not None:
            refuse_if(order in self.paid and (hold is None or self.paid[order] != hold), "order_already_paid")
            self.paid[order] = hold

    # Holds.

    def authorise(self, wallet: str, key: str, amount: int, order: str | None) -> Authorised:
        it = self.wallets[wallet]
        if key in it.hold_keys:
            request, told = it.hold_keys[key]
            refuse_if(request != (amount, order), "idempotency_key_reused")
            return replace(told, replayed=True)
        refuse_if(key in it.keys, "idempotency_key_reused")
        it.check("payment", 0)
        refuse_if(order in self.paid, "order_already_paid")
        it.check("payment", -amount)
        it.holds.append(Hold(amount, order))
        authorised = Authorised(len(it.holds), amount)
        it.hold_keys[key] = ((amount, order), authorised)
        return authorised

    def capture(self, wallet: str, key: str, hold: int, amount: int | None) -> Receipt:
        """Turn a part of a hold, or without an amount its remaining amount, into a payment."""
        it, held = self.wallets[wallet], self.wallets[wallet].holds[hold - 1]
        if key in it.keys:
            told = it.keys[key][1]
            same = told.movement.hold == hold and amount in (None, -told.movement.amount)
            refuse_if(not same, "idempotency_key_reused")
            return replace(told, replayed=True)
        refuse_if(held.status == "captured", "already_captured")
        refuse_if(held.status in ("voided", "expired"), f"hold_{held.status}")
        amount = held.left if amount is None else amount
        refuse_if(amount > held.left, "capture_exceeds_hold")
        refuse_if(key in it.hold_keys, "idempotency_key_reused")
        refuse_if(it.status == "frozen", "wallet_frozen")
        self._claim(held.order, (wallet, hold))
        held.captured += amount
        held.status = "captured" if held.left == 0 else "active"
        return it.write(key, ("capture", hold, amount), "payment", -amount, order=held.order, hold=hold)

    def void(self, wallet: str, hold: int) -> str:
        """Release the remaining amount of a hold. A voided or expired hold stays so."""
        held = self.wallets[wallet].holds[hold - 1]
        refuse_if(held.status == "captured", "already_captured")
        held.status = "voided" if held.status == "active" else held.status
        return held.status

    def time_is_over(self, wallet: str, hold: int) -> None:
        held = self.wallets[wallet].holds[hold - 1]
        held.status = "expired" if held.status == "active" else held.status

    def expire(self) -> None:
        """Mark expired holds. It changes no visible state."""

    # Orders.

    def place(self, wallet: str, key: str, items: list[tuple[str, int]]) -> tuple[str, int, Receipt]:
        """Order products at current prices and pay them, or neither. Returns the order, total and payment."""
        it, request = self.wallets[wallet], ("place", items)
        name = f"order {len(self.orders) + 1}"
        if key in it.keys and it.keys[key][0][0] == "place":
            receipt = it.answered(key, request)
            assert receipt is not None
            return receipt.movement.order or "", -receipt.movement.amount, receipt
        refuse_if(not items, "order_empty")
        for product, _ in items:
            refuse_if(it.currency not in self.prices[product], "product_without_price")
        total = sum(self.prices[product][it.currency] * quantity for product, quantity in items)
        receipt = self._post(wallet, key, request, "payment", -total, name)
        self.orders.append(Order(wallet, total, receipt.movement.number))
        return name, total, receipt

    def cancel(self, number: int, key: str) -> tuple[int, int | None, bool]:
        """Cancel an order and refund its remaining payment. Twice is once. Returns the refund, the balance after it,
        and whether the order was cancelled before.
        """
        order = self.orders[number - 1]
        it = self.wallets[order.wallet]
        if key in it.keys:
            refuse_if(it.keys[key][1].movement.number != order.refund, "idempotency_key_reused")
        refuse_if(key in it.hold_keys or it.cancel_keys.get(key, number) != number, "idempotency_key_reused")
        replayed = order.status == "cancelled"
        left = it.refundable(it.movements[order.payment - 1])
        if not replayed and left > 0:
            it.check("refund", left)
            about = {"order": f"order {number}", "refund_of": order.payment, "refundable": 0}
            order.refund = it.write(key, ("cancel", number), "refund", left, **about).movement.number
        if not replayed:
            it.cancel_keys[key] = number
        order.status = "cancelled"
        if order.refund is None:
            return 0, None, replayed
        refund = it.movements[order.refund - 1]
        return refund.amount, refund.balance_after, replayed

    # The books as a whole.

    def trial_balance(self) -> dict[tuple[str, str, str | None], tuple[int, int]]:
        """Debit and credit of each used account in each currency. Wallets are shown in two parts: what members are
        owed, and what they owe.
        """
        owing: defaultdict[tuple[str, str, str | None], int] = defaultdict(int)
        for wallet in self.wallets.values():
            owing[wallet.currency, "wallets", "owed to members"] -= wallet.deposit
            owing[wallet.currency, "wallets", "owed by members"] += wallet.credit_used
            for movement in wallet.movements:
                owing[wallet.currency, COUNTER_ACCOUNT[movement.type], None] += movement.amount
        return {account: (max(debit, 0), max(-debit, 0)) for account, debit in owing.items() if debit}
