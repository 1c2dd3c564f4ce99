"""API keys: credentials of services in one tenant (shared schema)."""
