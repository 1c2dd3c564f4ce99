"""The journeys of a member and of an admin with the Python client, against a served application. Run with the URL, the
addresses of admin and member, and their password.
"""

import sys
from decimal import Decimal
from typing import TypeVar
from uuid import uuid4

from schema_wallet_client import AuthenticatedClient, Client
from schema_wallet_client.api.audit import list_audit_entries
from schema_wallet_client.api.auth import login, logout
from schema_wallet_client.api.holds import authorise_hold, capture_hold
from schema_wallet_client.api.ledger import list_own_transactions, post_deposit, post_own_payment, post_refund
from schema_wallet_client.api.members import list_members, show_me
from schema_wallet_client.api.wallets import configure_wallet, open_wallet, show_own_wallet, show_wallet
from schema_wallet_client.models import (
    Authorise,
    Capture,
    ConfigureWallet,
    Deposit,
    Login,
    OpenWallet,
    Payment,
    Problem,
    Refund,
)

Answer = TypeVar("Answer")
URL, ADMIN, MEMBER, PASSWORD = sys.argv[1:]


def given(answer: Answer | Problem | None) -> Answer:
    """The answer, which must be a success."""
    assert answer is not None
    assert not isinstance(answer, Problem), answer.to_dict()
    return answer


def logged_in(email: str) -> AuthenticatedClient:
    anybody = Client(base_url=URL, headers={"X-Tenant": "eur"})
    tokens = given(login.sync(client=anybody, body=Login(email=email, password=PASSWORD)))
    assert isinstance(tokens.access_token, str)
    return AuthenticatedClient(base_url=URL, token=tokens.access_token, headers={"X-Tenant": "eur"})


def once() -> str:
    return uuid4().hex


admin, member = logged_in(ADMIN), logged_in(MEMBER)
me = given(show_me.sync(client=member))
assert me.email == MEMBER

# The admin finds the member, opens the wallet, and pays in.
found = given(list_members.sync(client=admin, q=MEMBER))
assert [(each.id, each.role) for each in found.items] == [(me.id, "member")]
wallet = given(open_wallet.sync(client=admin, body=OpenWallet(user_id=me.id)))
deposit = given(
    post_deposit.sync(wallet.id, client=admin, body=Deposit(amount="100.00", reference="17"), idempotency_key=once())
)
assert deposit.balance_after == "100.00"

# A limit needs the version that the admin has seen.
version = show_wallet.sync_detailed(wallet.id, client=admin).headers["ETag"]
limit = ConfigureWallet(credit_limit="20.00")
assert given(configure_wallet.sync(wallet.id, client=admin, body=limit, if_match=version)).credit_limit == "20.00"
assert configure_wallet.sync_detailed(wallet.id, client=admin, body=limit, if_match=version).status_code == 412

# The member pays, repeats the payment without paying twice, and is told why too much is refused.
key, books = once(), Payment(amount="30.00", description="books")
payment = given(post_own_payment.sync(client=member, body=books, idempotency_key=key))
assert given(post_own_payment.sync(client=member, body=books, idempotency_key=key)).id == payment.id
refused = post_own_payment.sync(client=member, body=Payment(amount="900.00"), idempotency_key=once())
assert isinstance(refused, Problem)
assert (refused.code, refused.available, refused.shortfall) == ("insufficient_funds", "90.00", "810.00")

# A hold is captured in part; the admin refunds, and finds who did what.
hold = given(authorise_hold.sync(client=member, body=Authorise(amount="15.00"), idempotency_key=once()))
given(capture_hold.sync(hold.id, client=member, body=Capture(amount="10.00"), idempotency_key=once()))
refund = Refund(payment_id=payment.id, amount="5.00")
given(post_refund.sync(wallet.id, client=admin, body=refund, idempotency_key=once()))
noted = given(list_audit_entries.sync(client=admin, wallet_id=wallet.id))
assert "wallet.configure" in {entry.action for entry in noted.items}

# The list, page by page, adds up to the balance.
page = given(list_own_transactions.sync(client=member, limit=2))
amounts = [Decimal(each.amount) for each in page.items]
while page.next_cursor:
    page = given(list_own_transactions.sync(client=member, limit=2, cursor=page.next_cursor))
    amounts += [Decimal(each.amount) for each in page.items]
assert len(amounts) == 4
assert sum(amounts) == Decimal(given(show_own_wallet.sync(client=member)).balance) == Decimal("65.00")

assert logout.sync_detailed(client=member).status_code == 204
assert isinstance(show_me.sync(client=member), Problem)
sys.stdout.write("ok\n")
