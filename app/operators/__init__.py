"""What the installation's operators see across tenants."""
