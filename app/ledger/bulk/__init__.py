"""Bulk posting: many movements in one request, atomic or each on its own."""
