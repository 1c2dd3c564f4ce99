"""Repairs a tenant's role, login, owner, grants and functions' paths, and adopts a schema that lost its row or name."""
