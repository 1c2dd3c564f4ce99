"""Views of the installation's operators across tenants."""
