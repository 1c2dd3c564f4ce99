"""/api/me/second-factor: the caller's second factor."""

from typing import Any
from uuid import UUID

from app.api.blueprint import Blueprint
from app.api.refusals import refuses
from app.auth.access import Access, access, caller
from app.auth.credentials import presented_session
from app.auth.second_factor import codes, service
from app.auth.second_factor.errors import CodeWrong, SecondFactorExists, SecondFactorMissing
from app.auth.second_factor.schemas import (
    CodeSchema,
    FullProofSchema,
    NewSecondFactorSchema,
    PasswordProofSchema,
    RecoveryCodesSchema,
    SecondFactorSchema,
)
from app.auth.service import PASSWORD_REFUSALS, confirm_password, lock_account
from app.errors import TooManyRequests
from app.limits.attempts import code_attempt
from app.users.service import get_user

blueprint = Blueprint(
    "second_factor", __name__, url_prefix="/api/me/second-factor", description="The second factor of a log-in."
)


@blueprint.get("")
@access(Access.USER)
@blueprint.response(200, SecondFactorSchema)
def show_second_factor() -> service.FactorState:
    """Whether the caller's account has a second factor."""
    return service.state_of(caller().user_id)


@blueprint.post("")
@access(Access.USER)
@blueprint.arguments(PasswordProofSchema)
@blueprint.response(200, NewSecondFactorSchema)
@refuses(SecondFactorExists, *PASSWORD_REFUSALS)
def set_up_second_factor(body: dict[str, str]) -> dict[str, Any]:
    """Make a secret for an authenticator. Nothing asks for it until it is confirmed."""
    user_id = caller().user_id
    confirm_password(user_id, presented_session(), body["current_password"])
    secret = service.set_up(user_id)
    return {"secret": secret, "uri": codes.provisioning_uri(secret, get_user(user_id).email)}


@blueprint.post("/confirm")
@access(Access.USER)
@blueprint.arguments(CodeSchema)
@blueprint.response(200, RecoveryCodesSchema)
@refuses(SecondFactorMissing, CodeWrong, TooManyRequests)
def confirm_second_factor(body: dict[str, str]) -> dict[str, Any]:
    """Switch the second factor on with a first code, and get the recovery codes. This session has the factor then. It
    ends all other sessions of the user, which have proved none.
    """
    user_id = caller().user_id
    with code_attempt(user_id):
        lock_account(user_id, presented_session())
        return {"recovery_codes": service.confirm(user_id, body["code"], presented_session())}


@blueprint.post("/recovery-codes")
@access(Access.USER)
@blueprint.arguments(FullProofSchema)
@blueprint.response(200, RecoveryCodesSchema)
@refuses(SecondFactorMissing, CodeWrong, *PASSWORD_REFUSALS)
def replace_recovery_codes(body: dict[str, str]) -> dict[str, Any]:
    """Get new recovery codes. The earlier ones are good no longer."""
    user_id = caller().user_id
    _prove(user_id, body)
    return {"recovery_codes": service.replace_recovery_codes(user_id)}


@blueprint.post("/remove")
@access(Access.USER)
@blueprint.arguments(FullProofSchema)
@blueprint.response(204)
@refuses(SecondFactorMissing, CodeWrong, *PASSWORD_REFUSALS)
def remove_second_factor(body: dict[str, str]) -> None:
    """Switch the second factor off. It is no DELETE, because a proxy may drop the body of one."""
    user_id = caller().user_id
    _prove(user_id, body)
    service.switch_off(user_id)


def _prove(user_id: UUID, body: dict[str, str]) -> None:
    confirm_password(user_id, presented_session(), body["current_password"])
    with code_attempt(user_id):
        if not service.proves(user_id, body["code"]):
            raise CodeWrong("The code is wrong, or was used before.")
