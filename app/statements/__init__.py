"""Reading money: statements of a wallet as JSON, CSV and PDF, and all of the tenant's transactions."""
