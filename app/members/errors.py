"""Refusals about members."""

from app.errors import Conflict


class OwnMembership(Conflict):
    """Admins can't change or remove their own membership, so a tenant with an admin keeps one."""

    code = "own_membership"
