"""Restores: a bundle becomes a tenant again, is tried out, or a living tenant is cloned.

A schema that carries functions is never renamed: they would go on writing where they were made. A fresh one is made at
the bundle's revision, filled, proved and migrated, and then it is the tenant's.
"""
