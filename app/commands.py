"""The `flask` commands: the groups `api`, `auth`, `members`, `users`, `wallets` and `webhooks`, with the commands of
each feature.
"""

from flask import Flask

from app.api.commands import api
from app.auth.commands import auth
from app.auth.second_factor.commands import users
from app.command_group import CommandGroup
from app.holds.commands import COMMANDS as HOLDS
from app.ledger.commands import COMMANDS as LEDGER
from app.members.commands import members
from app.opening_balances.commands import COMMANDS as OPENING_BALANCES
from app.statements.documents.commands import COMMANDS as DOCUMENTS
from app.webhooks.commands import webhooks


def init_app(app: Flask) -> None:
    """Register the commands with Flask."""
    wallets = CommandGroup("wallets", help="Wallets and their ledger.")
    for command in (*LEDGER, *HOLDS, *OPENING_BALANCES, *DOCUMENTS):
        wallets.add_command(command)
    for group in (api, auth, wallets, members, users, webhooks):
        app.cli.add_command(group)
