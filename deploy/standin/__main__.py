"""Serve the stand-in: `python -m deploy.standin --port 8020`. SIGTERM and Ctrl-C stop it.

STANDIN_DATA           the folder of its key and of its database
STANDIN_ISSUER         its URL as the wallet and browsers see it; the wallet's OIDC_ISSUER is the same
STANDIN_USERS          its users: JSON, addresses and Argon2 hashes of passwords
WALLET_URL             the wallet's API, or the gateway before it
WALLET_TENANT          the slug of its tenant
WALLET_TENANT_ID       the id of its tenant, as in the source of events
WALLET_AUDIENCE        the wallet's OIDC_AUDIENCE
WALLET_WEBHOOK_SECRET  what POST /api/admin/webhooks answered; without it, no webhook is accepted
WALLET_BROKER_URL      RabbitMQ, with the login of the tenant's API key
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
from functools import partial
from pathlib import Path
from threading import Thread

from werkzeug.serving import make_server

from deploy.standin.app import create_app
from deploy.standin.commands import Commands
from deploy.standin.identity import Identity
from deploy.standin.inbox import Inbox
from deploy.standin.rabbitmq import consume


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.standin")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8020)
    given, env = parser.parse_args(), os.environ
    folder, broker = Path(env["STANDIN_DATA"]), env["WALLET_BROKER_URL"]
    users = json.loads(env.get("STANDIN_USERS", "{}"))
    inbox = Inbox(folder)
    app = create_app(
        identity=Identity(folder, env["STANDIN_ISSUER"], env["WALLET_AUDIENCE"], users),
        inbox=inbox,
        commands=Commands(broker, env["WALLET_TENANT_ID"]),
        wallet_url=env["WALLET_URL"],
        tenant=env["WALLET_TENANT"],
        secret=env.get("WALLET_WEBHOOK_SECRET") or secrets.token_urlsafe(),
    )
    server = make_server(given.host, given.port, app, threaded=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: Thread(target=server.shutdown).start())
    Thread(
        target=lambda: asyncio.run(consume(broker, env["WALLET_TENANT_ID"], partial(inbox.take, "rabbitmq"))),
        daemon=True,
    ).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
