"""Wallet transactions and ledger entries: post, refund, adjust; history and audit."""
