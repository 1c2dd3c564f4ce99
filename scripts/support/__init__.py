"""What the commands share. No command is in this package."""
