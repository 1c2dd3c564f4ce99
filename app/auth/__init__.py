"""Who you are: passwords and access tokens."""
