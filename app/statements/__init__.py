"""Statements of a wallet as JSON, CSV and PDF, and lists of all the tenant's transactions."""
