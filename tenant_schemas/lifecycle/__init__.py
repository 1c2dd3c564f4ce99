"""The lifecycle of a tenant: provision, rename, archive and drop."""
