"""Migrations of every schema: the histories, their SQL, what is sent for one schema, and the runs over many."""
