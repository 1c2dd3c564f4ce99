"""Restores: makes a tenant from a bundle, verifies a bundle, or clones an existing tenant.

A schema with functions is never renamed, because its functions would keep writing into the old name. Instead a new
schema is made at the bundle's revision, filled, proved and migrated, and then assigned to the tenant.
"""
