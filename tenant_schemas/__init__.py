"""A tenancy engine for SQLAlchemy applications: one PostgreSQL schema and one login role for each tenant.

It knows tenants, schemas, roles and PostgreSQL. It knows nothing of what the schemas hold, and Flask in
`flask.py` only.
"""
