"""Users of the installation and the tenants to which they belong (shared schema)."""
