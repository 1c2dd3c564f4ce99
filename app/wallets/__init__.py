"""A balance held by one member in one tenant: open, limits, freeze, close."""
