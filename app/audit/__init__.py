"""The audit log of a tenant: changes by admins, services and operators, and refused requests."""
