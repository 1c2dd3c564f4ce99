"""What makes a message no command. Such a message goes to the dead letters, with the error's code as the reason. No
request is answered with these errors, so they are no problems of the API.

MessageRefused
├── NotACommand      the message can't be read
├── SenderUnknown    no valid API key has sent it
├── WrongTenant      the sender is of another tenant
└── CommandIdReused  another command has its name
"""

from typing import ClassVar


class MessageRefused(Exception):
    """The root."""

    code: ClassVar[str]

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotACommand(MessageRefused):
    """The message is no CloudEvent with a known type, or its data can't be read."""

    code = "not_a_command"


class SenderUnknown(MessageRefused):
    """The message has no `user-id` that is the name of a valid API key, or the key may not move money."""

    code = "sender_unknown"


class WrongTenant(MessageRefused):
    """The sender's API key is of another tenant than the queue."""

    code = "wrong_tenant"


class CommandIdReused(MessageRefused):
    """A command with this source and id was run before, and said something else."""

    code = "command_id_reused"
    sqlstate = "WA060"
