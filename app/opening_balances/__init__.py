"""The migration from balances calculated out of orders to balances that are their history: open wallets, import,
reconcile.
"""
