"""Credit that a tenant grants: its policy, whose limit was changed by whom, and how old the credit in use is."""
