"""The public keys of an OpenID provider: found by discovery, cached, and fetched again when they are old or one is
missing.

One thread fetches, at most once in REST_SECONDS, whatever tokens arrive. Known keys stay in use while the provider is
down or slow. While no key is known, all requests wait for the fetch; for a single missing key, one request at a time
waits.
"""

import json
from collections.abc import Mapping
from http.client import HTTPException
from threading import BoundedSemaphore, Event, Lock, Thread
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet

from app.auth.errors import ProviderUnavailable

log = structlog.get_logger(__name__)

FRESH_SECONDS: Final = 600
STALE_SECONDS: Final = 86_400  # A withdrawn key expires even while the provider does not answer.
REST_SECONDS: Final = 10
WAIT_SECONDS: Final = 5
TIMEOUT_SECONDS: Final = 3
MAX_BYTES: Final = 262_144
LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1"})


class ProviderKeys:
    """The keys of one issuer. It fetches nothing before the first key is asked for."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._lock = Lock()
        self._keys: Mapping[str, Key] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetched = Event()
        self._waiting = BoundedSemaphore()

    def find(self, kid: str) -> Key | None:
        """The key with this id; None if the provider has no such key. Raises ProviderUnavailable if no key is known."""
        age = monotonic() - self._fetched_at
        known = self._keys if age < STALE_SECONDS else {}
        if kid not in known or age > FRESH_SECONDS:
            self._refresh()
        if kid in known:
            return known[kid]
        if not known:
            self._fetched.wait(WAIT_SECONDS)
        elif self._waiting.acquire(blocking=False):  # A flood of invented key ids must not occupy all threads.
            try:
                self._fetched.wait(WAIT_SECONDS)
            finally:
                self._waiting.release()
        if monotonic() - self._fetched_at >= STALE_SECONDS:
            raise ProviderUnavailable("The identity provider does not answer with its keys; try again shortly.")
        return self._keys.get(kid)

    def _refresh(self) -> None:
        with self._lock:
            if monotonic() - self._tried_at < REST_SECONDS:
                return
            self._tried_at = monotonic()
            self._fetched = Event()
            Thread(target=self._fetch, args=(self._fetched,), daemon=True).start()

    def _fetch(self, fetched: Event) -> None:
        try:
            self._keys = fetch_keys(self._issuer)
            self._fetched_at = monotonic()
        except (
            OSError,
            HTTPException,
            JoseError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
        ) as error:
            log.warning("identity_provider_unavailable", issuer=self._issuer, error=repr(error))
        finally:
            fetched.set()


def fetch_keys(issuer: str) -> dict[str, Key]:
    """The provider's keys by id, through its discovery document (OpenID Connect Discovery 1.0). A provider may answer
    with anything, so it raises OSError, HTTPException, JoseError, ValueError, TypeError, LookupError or AttributeError.
    """
    described = _read_json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if described["issuer"] != issuer:
        raise ValueError(f"the discovery document is of issuer {described['issuer']!r}")
    jwks_uri = str(described["jwks_uri"])
    if urlsplit(jwks_uri).scheme != "https" and not is_local(issuer):
        raise ValueError("jwks_uri is not https")
    keys = KeySet.import_key_set(_read_json(jwks_uri))
    return {key.kid: key for key in keys if key.kid}


def is_local(url: str) -> bool:
    """Whether the URL's host is this machine. Plain http is accepted for it."""
    return urlsplit(url).hostname in LOCAL_HOSTS


def _read_json(url: str) -> Any:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local(url)):
        raise ValueError(f"{url} is not https")
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310  The scheme was just checked.
    ends_at = monotonic() + TIMEOUT_SECONDS
    body = bytearray()
    with build_opener(_NoRedirects).open(request, timeout=TIMEOUT_SECONDS) as response:
        while part := response.read1(MAX_BYTES):
            body += part
            if len(body) > MAX_BYTES or monotonic() > ends_at:
                raise OSError(f"the answer of {url} is too long or too slow")
    return json.loads(body)


class _NoRedirects(HTTPRedirectHandler):
    """Redirects are refused: the keys come from the address that the provider publishes."""

    def redirect_request(self, *_: Any) -> None:
        return None
