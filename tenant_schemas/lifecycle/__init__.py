"""What befalls a tenant after it is made: another name, the archive, the end."""
