"""Products and categories, common to all tenants, with a price for each currency."""
