"""Code that several commands share. No command is in this package."""
