"""API keys: how a service acts in one tenant without being anybody (shared schema)."""
