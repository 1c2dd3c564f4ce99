"""What can go wrong with who belongs where."""

from app.errors import Conflict, NotFound


class MemberNotFound(NotFound):
    """No such user, or not a member of this tenant. The two look alike on purpose."""

    code = "member_not_found"


class UserExists(Conflict):
    code = "user_exists"


class OwnMembership(Conflict):
    """Admins neither change nor remove themselves, so a tenant that has one keeps one."""

    code = "own_membership"
