"""Holds: an amount of a wallet reserved for a later payment. Authorise, capture, void, expire."""
