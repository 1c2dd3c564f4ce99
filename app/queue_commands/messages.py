"""Reads a message as a command: a CloudEvent in structured JSON, `wallet.<verb>.requested.v1`."""

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from app.api.requests import decoded_json
from app.errors import ServiceError
from app.queue_commands.errors import NotACommand
from app.queue_commands.schemas import DATA_OF

MAX_BYTES: Final = 65_536
# The id has no colon, so that `command:<source>:<id>` is the key of one command only.
_SOURCE: Final = re.compile(r"[!-~]{1,100}", re.ASCII)
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,100}", re.ASCII)
_TYPE: Final = re.compile(rf"wallet\.({'|'.join(DATA_OF)})\.requested\.v1", re.ASCII)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Command:
    """A command as its sender wrote it. `source` and `id` name it; the data is not checked yet. `fingerprint` is of
    type and data: other attributes may differ when it is sent again.
    """

    source: str
    id: str
    verb: str
    data: dict[str, Any]
    fingerprint: bytes
    traceparent: str | None


def read_command(body: bytes) -> Command:
    """The command in a message's body. Raises NotACommand."""
    event = _object(body)
    source, id_, type_, data = (event.get(name) for name in ("source", "id", "type", "data"))
    if event.get("specversion") != "1.0":
        raise NotACommand("The message is no CloudEvent of version 1.0 in structured JSON.")
    if not isinstance(source, str) or not _SOURCE.fullmatch(source):
        raise NotACommand("`source` must have 1 to 100 printable ASCII characters without spaces.")
    if not isinstance(id_, str) or not _ID.fullmatch(id_):
        raise NotACommand("`id` must have 1 to 100 letters, digits or characters of `._~-`.")
    found = _TYPE.fullmatch(type_) if isinstance(type_, str) else None
    if found is None:
        raise NotACommand(f"`type` must be one of {', '.join(f'wallet.{verb}.requested.v1' for verb in DATA_OF)}.")
    if not isinstance(data, dict):
        raise NotACommand("`data` must be a JSON object.")
    trace = event.get("traceparent")
    is_trace = isinstance(trace, str) and _TRACEPARENT.fullmatch(trace)
    canonical = json.dumps([type_, data], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return Command(source, id_, found[1], data, sha256(canonical.encode()).digest(), trace if is_trace else None)


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise NotACommand(f"The message is longer than {MAX_BYTES} bytes.")
    try:
        event = decoded_json(body)
    except ServiceError as error:
        raise NotACommand(error.detail) from None
    if not isinstance(event, dict):
        raise NotACommand("The message is no JSON object.")
    return event
