"""Which URLs and addresses a webhook may be sent to. A tenant chooses the URL, and the delivery log shows the answer:
without this check, a tenant could read from the installation's own network.

Python's `is_global` lets multicast, NAT64, 6to4 and other embedded addresses pass. So this module unwraps an address
first, and has its own lists.
"""

import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Sequence[str]]

MAX_URL_LENGTH: Final = 2000
DEFAULT_PORTS: Final = {"https": 443, "http": 80}
PORTS: Final = {"https": frozenset({443, 8443}), "http": frozenset({80, 8080})}

# One strict form, so that no two parsers can read a URL differently: no user, no fragment, no backslash.
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>[/?][!$-;=?-Z\[\]_a-z~]*)?",
    re.ASCII | re.IGNORECASE,
)
# The special-purpose blocks of IANA's registry, and all that is not unicast.
_DENIED_4: Final = tuple(
    IPv4Network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
_UNICAST_6: Final = IPv6Network("2000::/3")
_DENIED_6: Final = tuple(
    IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20")
)
# Prefixes of 96 bits before an IPv4 address: mapped, translated (RFC 2765), NAT64 (RFC 6052), compatible.
_BEFORE_IPV4: Final = tuple(
    IPv6Network(block) for block in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "::/96")
)
_LOCAL: Final = frozenset({IPv6Address("::"), IPv6Address("::1")})


class AddressRefused(Exception):
    """The URL, or an address that its name resolves to, is none that a webhook may be sent to."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, taken apart."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AddressRules:
    """The installation's rules. An address in `allowed_networks` may be private, and may have any port."""

    allowed_networks: tuple[Network, ...] = ()
    allow_http: bool = False

    @classmethod
    def of(cls, networks: Sequence[str], *, allow_http: bool) -> Self:
        return cls(tuple(ip_network(network) for network in networks), allow_http)

    def target(self, url: str) -> Target:
        """Take the URL apart. Resolves no name. Raises AddressRefused for a wrong form or scheme, and for an address in
        the URL itself that is refused.
        """
        found = _URL.fullmatch(url) if len(url) <= MAX_URL_LENGTH else None
        port = int(found["port"] or DEFAULT_PORTS[found["scheme"].lower()]) if found else 0
        if found is None or port > 65535:  # noqa: PLR2004
            raise AddressRefused("The URL must be like https://example.com/hook, without user and fragment.")
        scheme = found["scheme"].lower()
        if scheme == "http" and not self.allow_http:
            raise AddressRefused("The URL must begin with https://.")
        path = found["path"] or "/"
        target = Target(scheme, found["host"].strip("[]"), port, path if path.startswith("/") else f"/{path}")
        literal = _address_in(target.host)
        if literal is not None:
            self._check(literal, target)
        elif port not in PORTS[scheme] and not self.allowed_networks:
            raise _refused_port(target)
        return target

    def addresses(self, target: Target, resolve: Resolver) -> list[str]:
        """All addresses of the target, of which each was checked. Raises AddressRefused if one of them is refused, and
        OSError if the name does not resolve.
        """
        found = list(dict.fromkeys(resolve(target.host, target.port)))
        for text in found:
            self._check(ip_address(text), target)
        if not found:
            raise AddressRefused(f"{target.host} has no address.")
        return found

    def _check(self, address: Address, target: Target) -> None:
        if self.is_allowed(address):
            return
        if not is_public(address):
            raise AddressRefused(f"{target.host} has an address that is not public.")
        if target.port not in PORTS[target.scheme]:
            raise _refused_port(target)

    def is_allowed(self, address: Address) -> bool:
        """Whether the address, or the one that it embeds, is in an allowed network."""
        inner = unwrapped(address)
        return any(inner.version == network.version and inner in network for network in self.allowed_networks)


def is_public(address: Address) -> bool:
    """Whether the address, and the one that it embeds, belongs to the public internet."""
    inner = unwrapped(address)
    if isinstance(inner, IPv4Address):
        return not any(inner in block for block in _DENIED_4)
    return inner.scope_id is None and inner in _UNICAST_6 and not any(inner in block for block in _DENIED_6)


def unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address embeds: mapped, compatible, translated, NAT64, 6to4 or Teredo. Any other
    address as it is.
    """
    if isinstance(address, IPv4Address) or address in _LOCAL:
        return address
    if any(address in block for block in _BEFORE_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        server, client = address.teredo
        return next((inner for inner in (server, client) if not is_public(inner)), client)
    return address.sixtofour or address


def resolve_name(host: str, port: int) -> list[str]:
    """The addresses of a name, by the system's resolver. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _address_in(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _refused_port(target: Target) -> AddressRefused:
    ports = " or ".join(str(port) for port in sorted(PORTS[target.scheme]))
    return AddressRefused(f"Port {target.port} is not allowed: use {ports}.")
