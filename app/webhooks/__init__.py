"""Webhooks: events of a tenant that are sent to URLs of its admins' choice, by Standard Webhooks."""
