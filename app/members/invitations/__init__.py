"""Invitations of an address to a tenant (shared schema)."""
