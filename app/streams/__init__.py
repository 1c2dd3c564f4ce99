"""Server-sent events: a tenant's feed for its staff, and the events of a member's own wallets."""
