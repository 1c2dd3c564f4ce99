"""Proofs of each tenant's books while the service runs, and the signed heads of its chains."""
