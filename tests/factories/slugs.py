"""Texts that are not valid slugs."""

NOT_SLUGS = ["EUR", "e ur", "é", "eur'; DROP TABLE shared.tenants; --", "%", "eur\0", "eur.km", "1", "_"]
