"""The feed of what happened to a tenant's wallets, holds and orders, as numbered CloudEvents."""
