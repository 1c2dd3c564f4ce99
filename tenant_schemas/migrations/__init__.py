"""Migrations: the histories and their SQL, the statements for one schema, and the runner for all schemas."""
