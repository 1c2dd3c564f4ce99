"""Who did what in a tenant besides moving their own money, and what was refused to whom."""
