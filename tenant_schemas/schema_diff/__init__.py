"""Schema drift: compares the objects of a tenant's schema with those that the history makes at its revision."""
