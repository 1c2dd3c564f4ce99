"""Which side the code at hand works on: one tenant, the shared side, or none.

The binding lives in a ContextVar, so threads and greenlets each see their own, and a thread started inside a
request starts with none. There is no default tenant.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from enum import Enum
from typing import Final

from tenant_schemas.errors import NotBound
from tenant_schemas.tenant import Tenant


class Side(Enum):
    """The sides that are no tenant."""

    SHARED = "shared"


SHARED: Final = Side.SHARED
Binding = Tenant | Side

_binding: ContextVar[Binding | None] = ContextVar("tenant_schemas.binding", default=None)


def current_binding() -> Binding:
    """The bound tenant, or SHARED. Raises `NotBound` if the code asked for neither."""
    binding = _binding.get()
    if binding is None:
        raise NotBound(
            "No tenant is bound. Enter `tenant_context(...)`, or `shared_side()` if shared tables are meant."
        )
    return binding


def current_tenant() -> Tenant:
    """The bound tenant. Raises `NotBound` if there is none, also on the shared side."""
    binding = current_binding()
    if not isinstance(binding, Tenant):
        raise NotBound("The shared side is bound; this needs a tenant.")
    return binding


@contextmanager
def bound(binding: Binding) -> Iterator[Binding]:
    """Bind a tenant or SHARED for the block; what was bound before comes back, whatever happens inside."""
    token = bind(binding)
    try:
        yield binding
    finally:
        unbind(token)


def bind(binding: Binding) -> Token[Binding | None]:
    """Bind without a block, for frameworks with hooks. Whoever calls it owes an `unbind` of the token."""
    return _binding.set(binding)


def unbind(token: Token[Binding | None]) -> None:
    _binding.reset(token)
