"""The stand-in's routes: log-in, the documents of an OpenID provider, the wallet by its typed client, the receiver of
webhooks, commands, and a page.
"""

from pathlib import Path
from typing import Any

from flask import Flask, abort, request
from flask.typing import ResponseReturnValue
from schema_wallet_client import AuthenticatedClient
from schema_wallet_client.api.wallets import show_own_wallet
from schema_wallet_client.models import Wallet
from standardwebhooks import Webhook, WebhookVerificationError

from deploy.standin.commands import Commands
from deploy.standin.events import MAX_BYTES, Unreadable, read_event, read_object
from deploy.standin.identity import Identity
from deploy.standin.inbox import Inbox
from deploy.standin.proof import Incomplete

MOST_TIMES = 10
PAGE = Path(__file__).with_name("page.html")


def members_of_request() -> dict[str, Any]:
    try:
        return read_object(request.get_data())
    except Unreadable as error:
        abort(422, str(error))


def create_app(
    *, identity: Identity, inbox: Inbox, commands: Commands, wallet_url: str, tenant: str, secret: str
) -> Flask:
    """`tenant` is the slug of the wallet's tenant, `secret` that of the webhook endpoint."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES

    def bearer() -> tuple[str, str]:
        """The token of the request, and whose it is."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return token, identity.email_of(token) or abort(401)

    @app.post("/login")
    def log_in() -> ResponseReturnValue:
        body = members_of_request()
        token = identity.log_in(str(body.get("email")), str(body.get("password")))
        return {"accessToken": token} if token else abort(401)

    app.get("/.well-known/openid-configuration")(identity.discovery)
    app.get("/keys")(identity.keys)

    def own_wallet(token: str) -> Wallet:
        """The wallet as the main application sees it: by the typed client, in the name of its user."""
        with AuthenticatedClient(base_url=wallet_url, token=token, headers={"X-Tenant": tenant}) as client:
            found = show_own_wallet.sync(client=client)
        return found if isinstance(found, Wallet) else abort(502)

    @app.get("/account")
    def show_account() -> ResponseReturnValue:
        token, email = bearer()
        wallet = own_wallet(token)
        return {"email": email, "walletId": str(wallet.id), "balance": wallet.balance, "currency": wallet.currency}

    @app.post("/webhooks/wallet")
    def receive_webhook() -> ResponseReturnValue:
        """204 says that the event is stored. After any other answer the wallet sends it again."""
        body = request.get_data()
        try:
            Webhook(secret).verify(body, dict(request.headers), json_parse=False)
        except (WebhookVerificationError, ValueError):
            abort(401)
        try:
            inbox.take("webhook", read_event(body))
        except (Unreadable, Incomplete) as error:
            app.logger.warning("%s", error)
            abort(400 if isinstance(error, Unreadable) else 409)
        return "", 204

    @app.post("/commands/payments")
    def command_payment() -> ResponseReturnValue:
        """Command a payment by queue; `times` sends the same command again, as a broker may."""
        token, _ = bearer()
        body = members_of_request()
        amount, times = body.get("amount"), body.get("times", 1)
        if not isinstance(amount, str) or type(times) is not int or not 1 <= times <= MOST_TIMES:
            abort(422, f"amount is a text, such as 3.20, and times is a whole number from 1 to {MOST_TIMES}")
        return {"commandId": commands.send_payment(str(own_wallet(token).id), amount, times=times)}, 202

    @app.get("/arrived/<via>")
    def list_arrived(via: str) -> ResponseReturnValue:
        """The events of the user's own wallet that came by `rabbitmq` or by `webhook`."""
        token, _ = bearer()
        return {"items": inbox.arrived(via, str(own_wallet(token).id))}

    @app.get("/")
    def show_page() -> ResponseReturnValue:
        return PAGE.read_text(encoding="utf-8").replace("TENANT", tenant)

    return app
