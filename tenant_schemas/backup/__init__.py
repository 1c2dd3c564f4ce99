"""Backups: writes one tenant as a bundle, a folder with its rows and a manifest to verify them."""
