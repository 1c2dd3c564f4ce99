"""Schema drift: the objects of a tenant's schema, compared with those that its history makes at its revision."""
