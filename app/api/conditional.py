"""Conditional requests (RFC 9110, 13): the tags of representations and of versions, and what requests say of them.

A tag is `"4-1f0c…"` or `"1f0c…"`: the version of what can be changed, if the object has one, and a digest of the whole
answer. So a GET sees each change (a payment changes a wallet's balance), and a change is compared with the version
alone (a payment does not stop an admin who sets a limit). Intermediaries that compress answers make tags weak
(`W/"…"`) or add the coding (`"…-gzip"`); such tags are taken as our own.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import orjson
from flask import Response

from app.api.answers import JsonAnswer
from app.current import current_request
from app.errors import PreconditionFailed, PreconditionRequired

_TAG: Final = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*?)(?:[-;](?:gzip|br|zstd|deflate))?"')
_VERSION: Final = re.compile(r"([0-9]{1,10})(?:-[0-9a-f]+)?", re.ASCII)
_MOST: Final = 2**32 - 1  # PostgreSQL's xid
NOT_MODIFIED: Final = 304


def etag(version: int) -> dict[str, str]:
    """The tag of a version, of an answer to a change."""
    return {"ETag": f'"{version}"'}


def conditional_answer(value: Any, headers: dict[str, str] | None) -> JsonAnswer:
    """200 with this value and its tag, or 304 if the request names the tag in If-None-Match. A version that the headers
    have as ETag becomes the first part of the tag.
    """
    body = orjson.dumps(value)
    digest = blake2b(body, digest_size=8).hexdigest()
    given = dict(headers or {})
    version = given.get("ETag", "").strip('"')
    given["ETag"] = tag = f'"{version}-{digest}"' if version else f'"{digest}"'
    stored = given.pop("Cache-Control", None)
    known = current_request().environ.get("HTTP_IF_NONE_MATCH")
    is_known = known and (known.strip() == "*" or tag.strip('"') in _TAG.findall(known))
    answer = JsonAnswer(b"" if is_known else body, NOT_MODIFIED if is_known else 200, given)
    if stored:
        answer.headers["Cache-Control"] = stored
    return answer


# Headers of an answer that the caller's own cache may keep, if it asks each time whether it is still right.
REVALIDATED: Final = {"Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie, X-Tenant"}


def public_answer(value: Any) -> Response:
    """A conditional answer that everybody may have. A cache asks each time whether it is still valid."""
    return conditional_answer(value, {"Cache-Control": "public, no-cache"})


@dataclass(frozen=True, slots=True)
class IfMatch:
    """The versions that a change may be made to; None: any."""

    versions: frozenset[int] | None

    @property
    def is_any(self) -> bool:
        return self.versions is None

    def allows(self, version: int) -> bool:
        return self.versions is None or version in self.versions

    def refuse_others(self, version: int) -> None:
        """Raises PreconditionFailed if the object has another version."""
        if not self.allows(version):
            raise PreconditionFailed("The object has changed since that version; read it again.")

    def version(self, current: Callable[[], int]) -> int:
        """The one version, for SQL that compares it. Of several, or of any, it is the object's own, which `current`
        reads. Raises PreconditionFailed.
        """
        if self.versions is not None and len(self.versions) == 1:
            (version,) = self.versions
        else:
            version = current()
            self.refuse_others(version)
        return version


def if_match() -> IfMatch:
    """What the request says in If-Match: tags, versions in quotes, weak forms of both, or `*`. Tags of other kinds
    match nothing. Raises PreconditionRequired without the header, PreconditionFailed if it names no version.
    """
    header = current_request().headers.get("If-Match", "").strip()
    if not header:
        raise PreconditionRequired("Send If-Match with the ETag of the version you have seen.")
    if header == "*":
        return IfMatch(None)
    parsed = [_VERSION.fullmatch(tag) for tag in _TAG.findall(header)]
    versions = frozenset(int(found[1]) for found in parsed if found and int(found[1]) <= _MOST)
    if not versions:
        raise PreconditionFailed("If-Match names no version of this resource; read it again for its ETag.")
    return IfMatch(versions)
