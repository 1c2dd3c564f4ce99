"""Wallet transactions and ledger entries: posting, refunds, adjustments, history and audit."""
