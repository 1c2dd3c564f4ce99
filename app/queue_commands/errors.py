"""What makes a message no command. Such a message goes to the dead letters, with the error's code as the reason."""

from app.errors import ServiceError
from app.sql_refusals import sql_refusal


class NotACommand(ServiceError):
    """The message is no CloudEvent with a known type, or its data can't be read."""

    code = "not_a_command"


class SenderUnknown(ServiceError):
    """The message has no `user-id` that is the name of a valid API key, or the key may not move money."""

    code = "sender_unknown"


class WrongTenant(ServiceError):
    """The sender's API key is of another tenant than the queue."""

    code = "wrong_tenant"


@sql_refusal
class CommandIdReused(ServiceError):
    """A command with this source and id was run before, and said something else."""

    code = "command_id_reused"
    sqlstate = "WA060"
    text = "A command with this source and id was run before, and it said something else."
