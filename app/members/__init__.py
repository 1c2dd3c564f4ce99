"""Members of a tenant: its users and their roles (shared schema)."""
