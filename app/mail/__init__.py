"""Mails of accounts: the outbox, the texts, the ways out (shared schema)."""
