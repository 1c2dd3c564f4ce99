"""What can go wrong with who belongs where."""

from app.errors import Conflict


class OwnMembership(Conflict):
    """Admins neither change nor remove themselves, so a tenant that has one keeps one."""

    code = "own_membership"
