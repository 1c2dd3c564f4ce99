"""The relay: numbers the events of tenants and hands them to the broker and to webhooks."""
