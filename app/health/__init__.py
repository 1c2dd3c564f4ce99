"""Health checks of the process."""
