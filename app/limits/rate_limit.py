"""Rate limits: of a tenant (all its callers together), and of log-ins by address and by account.

Each process counts in memory, unless RATE_LIMIT_STORAGE_URL names a Redis for all processes. The library `limits`
parses the rates. flask-limiter on top of it is not used: its hooks cost 160 µs a request, half of the Python time of a
payment, and run before the tenant is known.
"""

from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from time import time
from typing import Final
from uuid import UUID

from flask import Flask, Response, current_app, g, request
from limits import RateLimitItem, parse
from werkzeug.middleware.proxy_fix import ProxyFix

from app.config import Settings
from app.errors import TooManyRequests
from app.limits.counters import Counters, ProcessCounters, RedisCounters

EXTENSION: Final = "rate_counts"
COUNTED_PATHS: Final = frozenset({"/api/auth/login", "/api/auth/refresh"})


def init_app(app: Flask, settings: Settings) -> None:
    """Count log-ins by address. Call it before the gate is registered: the count costs no query."""
    url = settings.rate_limit_storage_url
    app.extensions[EXTENSION] = RedisCounters(url) if url else ProcessCounters()
    app.config["LOGIN_RATE_LIMIT"] = settings.login_rate_limit
    app.before_request(_count_address)
    app.after_request(_tell)
    if settings.trusted_proxies:
        # Only the forwarded address is used: a forwarded host could name a tenant.
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0, x_host=0, x_port=0, x_prefix=0
        )


def count_tenant(tenant_id: UUID, rate: str) -> None:
    """Count this request for the tenant and set the RateLimit headers of its answer. Raises TooManyRequests."""
    _count(rate, "tenant", str(tenant_id))


def count_login(email: str) -> None:
    """Count a log-in attempt on this account, whether or not it exists. Stores a keyed hash, not the address. Raises
    TooManyRequests.
    """
    secret: str = current_app.config["SECRET_KEY"]
    account = blake2b(email.strip().lower().encode(), key=secret.encode()[:64], digest_size=16).hexdigest()
    _count(current_app.config["LOGIN_RATE_LIMIT"], "account", account)


def _count_address() -> None:
    if request.method == "POST" and request.path in COUNTED_PATHS:
        _count(current_app.config["LOGIN_RATE_LIMIT"], "address", _address())


def _count(rate: str, *who: str) -> None:
    """Log-ins get RateLimit headers only when the limit is reached."""
    limit = _parsed(rate)
    counts: Counters = current_app.extensions[EXTENSION]
    number, ends_at = counts.add(limit, *who)
    is_too_many = number > limit.amount
    if is_too_many or who[0] == "tenant":
        g.rate_headers = _headers(limit.amount, number, ends_at, is_too_many=is_too_many)
    if is_too_many:
        raise TooManyRequests(f"The limit is {rate} requests; wait for the seconds in Retry-After.")


@lru_cache(1024)
def _parsed(rate: str) -> RateLimitItem:
    return parse(rate)


def _headers(amount: int, number: int, ends_at: float, *, is_too_many: bool) -> dict[str, str]:
    """The RateLimit headers. Times are in seconds from now, so they need no synchronised clocks."""
    seconds = str(max(1, ceil(ends_at - time())))
    told = {
        "RateLimit-Limit": str(amount),
        "RateLimit-Remaining": str(max(0, amount - number)),
        "RateLimit-Reset": seconds,
    }
    return {**told, "Retry-After": seconds} if is_too_many else told


def _tell(response: Response) -> Response:
    response.headers.update(g.get("rate_headers", ()))
    return response


def _address() -> str:
    """The client's address; for IPv6 its /64 network, because one client usually has all 2⁶⁴ addresses of it."""
    told = request.remote_addr or "unknown"
    try:
        address = ip_address(told)
    except ValueError:
        return told
    if not isinstance(address, IPv6Address):
        return told
    return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False))
