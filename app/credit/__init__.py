"""Credit that a tenant grants: its policy, the history of limits, and the ageing report."""
