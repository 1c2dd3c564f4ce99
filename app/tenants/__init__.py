"""The operator's view of the tenants: list, configure, suspend, provision."""
