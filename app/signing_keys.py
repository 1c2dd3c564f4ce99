"""The keys that sign access tokens: Ed25519 (RFC 9864), stored as a JWK Set in a file or a variable, newest first.

All keys verify. The newest key signs, but not before its `nbf`, so that every process and every reader of
/.well-known/jwks.json knows it by then. A changed file is read again, so a rotation needs no restart.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import time
from typing import Any, Final, cast

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from joserfc.util import json_b64encode

from app.secret_files import make_once, scratch_beside

log = structlog.get_logger(__name__)

ALGORITHM: Final = "Ed25519"
TYPE: Final = "JWT"
MAX_KID_LENGTH: Final = 100
PUBLISHED_MEMBERS: Final = ("kty", "crv", "x", "kid", "use", "alg")
PUBLISHED_SECONDS: Final = 300  # lifetime of a cached copy of the published keys
LEARNING_SECONDS: Final = 600  # time between the publication of a new key and its first signature


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key pair, its id, and the time (POSIX) from which it may sign."""

    kid: str
    pair: OKPKey
    signs_from: int


class KeyRing:
    """An immutable set of keys. A changed file makes a new KeyRing, so its identity stands for its contents."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self.keys = tuple(keys)

    def signer(self) -> SigningKey:
        """The newest key that may sign now; if none may, the oldest."""
        now = time()
        return next((key for key in self.keys if key.signs_from <= now), self.keys[-1])

    @cached_property
    def by_header(self) -> Mapping[str, OKPKey]:
        """The keys by the encoded headers of their tokens. A token with any other header is refused unread, so header
        members (alg, kid, jku, jwk, crit, b64…) can't choose how it is verified.
        """
        return {encoded_header(key.kid): key.pair for key in self.keys}

    @cached_property
    def published(self) -> dict[str, Any]:
        """The public halves as a JWK Set (RFC 7517)."""
        every = (key.pair.as_dict(private=False) for key in self.keys)
        return {"keys": [{name: members[name] for name in PUBLISHED_MEMBERS} for members in every]}


KeySource = Callable[[], KeyRing]


def header_of(kid: str) -> dict[str, Any]:
    """The header of all tokens of this key."""
    return {"typ": TYPE, "alg": ALGORITHM, "kid": kid}


def encoded_header(kid: str) -> str:
    return json_b64encode(header_of(kid)).decode()


def parse_keys(text: str) -> KeyRing:
    """Read a JWK Set with private Ed25519 keys. Raises ValueError, without any part of the keys in its message."""
    try:
        ring = KeyRing([_parse_key(members) for members in json.loads(text)["keys"]])
    except (JoseError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ValueError("it is not a JWK Set of private Ed25519 keys") from None
    kids = {key.kid for key in ring.keys}
    if not kids or len(kids) != len(ring.keys):
        raise ValueError("it has no key, or two keys with one kid")
    return ring


def _parse_key(members: Mapping[str, Any]) -> SigningKey:
    kid, signs_from = members["kid"], members.get("nbf", 0)
    is_right = members["kty"] == "OKP" and members["crv"] == ALGORITHM and isinstance(members["d"], str)
    if not (is_right and isinstance(kid, str) and 0 < len(kid) <= MAX_KID_LENGTH and type(signs_from) is int):
        raise ValueError
    pair = OKPKey.import_key({name: members[name] for name in ("kty", "crv", "x", "d")}, _about(kid))
    private = cast(Ed25519PrivateKey, pair.private_key)
    if OKPKey.import_key(private).as_dict(private=False)["x"] != members["x"]:
        raise ValueError
    return SigningKey(kid, pair, signs_from)


def _about(kid: str) -> Any:
    return {"kid": kid, "use": "sig", "alg": ALGORITHM}


def make_key(signs_from: int) -> SigningKey:
    """A new key pair. Its id is its thumbprint (RFC 7638)."""
    pair = OKPKey.generate_key(ALGORITHM)
    kid = pair.thumbprint()
    return SigningKey(kid, OKPKey.import_key(pair.as_dict(private=True), _about(kid)), signs_from)


def rotated(ring: KeyRing | None, keep: int) -> KeyRing:
    """The ring with a new key in front, and with the oldest keys dropped until `keep` are left; the key that signs now
    is never dropped. A first key signs at once.
    """
    now = int(time())
    if ring is None:
        return KeyRing([make_key(now)])
    kept = [make_key(now + LEARNING_SECONDS), *ring.keys][:keep]
    signer = ring.signer()
    return KeyRing(kept if signer in kept else [*kept, signer])


def dump_keys(ring: KeyRing) -> str:
    """The ring as text for `parse_keys`. It is secret."""
    return json.dumps({"keys": [key.pair.as_dict(private=True) | {"nbf": key.signs_from} for key in ring.keys]})


def ensure_key_file(path: Path) -> None:
    """Create the file with a first key unless it exists. Of several processes at once, one creates it."""
    if not path.exists():
        make_once(path, dump_keys(rotated(None, 1)))


def write_key_file(path: Path, ring: KeyRing) -> None:
    """Replace the file atomically. An existing file keeps its owner and mode, because the service may run as another
    user. Raises OSError.
    """
    scratch = scratch_beside(path, dump_keys(ring))
    try:
        if path.exists():
            about = path.stat()
            if (about.st_uid, about.st_gid) != (scratch.stat().st_uid, scratch.stat().st_gid):
                os.chown(scratch, about.st_uid, about.st_gid)
            scratch.chmod(about.st_mode & 0o777)
        scratch.replace(path.resolve())
    finally:
        scratch.unlink(missing_ok=True)


class KeyFile:
    """The keys in a file, read again after each change of the file. If that fails, the error is logged and the known
    keys stay in use.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError, ValueError."""
        self._path = path
        self._seen = self._look()
        self._ring = parse_keys(path.read_text())

    def __call__(self) -> KeyRing:
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._ring = parse_keys(self._path.read_text())
            except (OSError, ValueError):
                log.exception("signing_keys_unreadable", file=str(self._path))
        return self._ring

    def _look(self) -> tuple[int, ...] | None:
        try:
            about = self._path.stat()
        except OSError:
            return None
        return about.st_ino, about.st_mtime_ns, about.st_size


def key_source(file: str, text: str) -> KeySource:
    """The keys of this file, or else of this text. Raises OSError, ValueError."""
    if file:
        return KeyFile(Path(file))
    ring = parse_keys(text)
    return lambda: ring
