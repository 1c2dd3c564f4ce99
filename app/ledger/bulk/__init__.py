"""Many movements of money in one request: all or nothing, or each on its own."""
