"""A tenancy engine for SQLAlchemy applications: one PostgreSQL schema and one login role per tenant.

It knows tenants, schemas, roles and PostgreSQL, but not the contents of the schemas. Only `flask.py` imports Flask.
"""
