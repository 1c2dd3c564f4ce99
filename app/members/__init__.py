"""Who there is, and who belongs to which tenant (shared schema)."""
