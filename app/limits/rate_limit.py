"""Rate limits: of a caller in a tenant, of a tenant (all its callers together), and of the attempts in `attempts.py`.

Each process counts a tenant's requests in memory, unless RATE_LIMIT_STORAGE_URL names a Redis for all processes.
Attempts are counted over all processes, in Redis or in PostgreSQL. The library `limits` parses the rates. flask-limiter
on top of it is not used: its hooks cost 160 µs a request, half of the Python time of a payment, and run before the
tenant is known.
"""

import re
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from operator import attrgetter
from time import time
from typing import Final, NamedTuple
from uuid import UUID

import structlog
from flask import Flask, Response
from limits import RateLimitItem, parse
from werkzeug.middleware.proxy_fix import ProxyFix

from app.config import Settings
from app.current import current_app, g, request
from app.errors import TooManyRequests
from app.limits.counters import Counters, ProcessCounters, RedisCounters
from app.limits.database_counters import DatabaseCounters
from app.metrics import observations as metrics
from app.metrics.definitions import LIMITED

EXTENSION: Final = "rate_counts"
ATTEMPTS_EXTENSION: Final = "attempt_counts"
_WITH_PORT: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<v4>[0-9.]+))(?::[0-9]*)?", re.ASCII)


class Counted(NamedTuple):
    """A limit that this request was counted for. `name` says whose it is: caller, tenant, address, …"""

    name: str
    rate: "Rate"
    remaining: int
    reset_seconds: int


class Rate(NamedTuple):
    """A parsed rate. `policy` is its member of the header RateLimit-Policy, without the name."""

    item: RateLimitItem
    amount: int
    policy: str


def init_app(app: Flask, settings: Settings) -> None:
    """Register the counters, and the headers of counted requests."""
    url = settings.rate_limit_storage_url
    redis = RedisCounters(url) if url else None
    app.extensions[EXTENSION] = redis or ProcessCounters()
    app.extensions[ATTEMPTS_EXTENSION] = redis or DatabaseCounters(settings.secret_key)
    app.after_request(_tell)
    if settings.trusted_proxies:
        # Only the forwarded address is used: a forwarded host could name a tenant.
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0, x_host=0, x_port=0, x_prefix=0
        )


def count_request(tenant_id: UUID, caller_id: UUID, caller_rate: str, tenant_rate: str) -> None:
    """Count this request for its caller, then for its tenant, so that a caller over its rate takes nothing of the
    tenant's. Raises TooManyRequests.
    """
    tenant = str(tenant_id)
    counts: Counters = current_app.extensions[EXTENSION]
    _count(counts, caller_rate, "caller", f"{tenant}/{caller_id}")
    _count(counts, tenant_rate, "tenant", tenant)


def count_caller(caller_id: UUID, caller_rate: str) -> None:
    """Count this request for a caller who uses no tenant. Raises TooManyRequests."""
    _count(current_app.extensions[EXTENSION], caller_rate, "caller", str(caller_id))


def count_attempt(name: str, whose: str, rate: str, *, is_told: bool = True) -> None:
    """Count an attempt of this kind over all processes. If it is not told, the headers of the answer name the limit
    only when it refuses. Raises TooManyRequests.
    """
    _count(current_app.extensions[ATTEMPTS_EXTENSION], rate, name, whose, is_told=is_told)


def is_within(name: str, whose: str, rate: str) -> bool:
    """Count an attempt as `count_attempt` does. False if it is over the rate; no header tells of it."""
    counts: Counters = current_app.extensions[ATTEMPTS_EXTENSION]
    parsed = _parsed(rate)
    return counts.add(parsed.item, name, whose).number <= parsed.amount


def take_attempt_back(name: str, whose: str, rate: str) -> None:
    """Undo `count_attempt`. The headers of the answer then do not tell of it."""
    counts: Counters = current_app.extensions[ATTEMPTS_EXTENSION]
    counts.take_back(_parsed(rate).item, name, whose)
    g.counted = [counted for counted in g.get("counted", ()) if counted.name != name]


def clear_attempts(name: str, whose: str, rate: str) -> None:
    """Forget the attempts of this kind that `count_attempt` has counted."""
    counts: Counters = current_app.extensions[ATTEMPTS_EXTENSION]
    counts.clear(_parsed(rate).item, name, whose)


def hashed_account(address: str) -> str:
    """The account with this address, whether or not it exists, as counters know it: a keyed hash."""
    secret: str = current_app.config["SECRET_KEY"]
    return blake2b(address.strip().lower().encode(), key=secret.encode()[:64], digest_size=16).hexdigest()


def _count(counts: Counters, rate_text: str, name: str, whose: str, *, is_told: bool = True) -> None:
    rate = _parsed(rate_text)
    number, ends_at = counts.add(rate.item, name, whose)
    reset_seconds = max(1, ceil(ends_at - time()))
    counted = Counted(name, rate, max(0, rate.amount - number), reset_seconds)
    is_over = number > rate.amount
    if is_told or is_over:
        g.setdefault("counted", []).append(counted)
    if is_over:
        g.refused_by = counted
        metrics.count(LIMITED, "rate", name)
        structlog.contextvars.bind_contextvars(limit=f"rate of the {name}", limit_of=whose)
        raise TooManyRequests(f"The limit of this {name} is {rate_text} requests; wait for the seconds in Retry-After.")


@lru_cache(1024)
def _parsed(rate: str) -> Rate:
    item = parse(rate)
    return Rate(item, item.amount, f"q={item.amount};w={item.get_expiry()}")


def _tell(response: Response) -> Response:
    """Set the headers of the limits that the request was counted for. Times are in seconds from now, so they need no
    synchronised clocks.
    """
    counted: list[Counted] | None = g.get("counted")
    if not counted:
        return response
    refused_by: Counted | None = g.get("refused_by")
    nearest = refused_by or min(counted, key=_remaining)
    response.headers.extend(
        [
            ("RateLimit-Limit", str(nearest.rate.amount)),
            ("RateLimit-Remaining", str(nearest.remaining)),
            ("RateLimit-Reset", str(nearest.reset_seconds)),
            ("RateLimit-Policy", ", ".join([f'"{one.name}";{one.rate.policy}' for one in counted])),
            ("RateLimit", ", ".join([f'"{one.name}";r={one.remaining};t={one.reset_seconds}' for one in counted])),
        ]
    )
    if refused_by is not None:
        response.headers["Retry-After"] = str(refused_by.reset_seconds)
    return response


_remaining: Final = attrgetter("remaining")


def client_address() -> str:
    """The client's address; for IPv6 its /64 network, because one client usually has all 2⁶⁴ addresses of it.

    Some proxies forward `address:port`: a client has a new port for each connection, so the port does not count. Texts
    that are no address are one caller together, because a client may be able to choose them.
    """
    told = request.remote_addr or ""
    with_port = _WITH_PORT.fullmatch(told)
    try:
        address = ip_address((with_port["v6"] or with_port["v4"]) if with_port else told)
    except ValueError:
        return "unknown"
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False))
