"""The binding of the running code: one tenant, the shared side, or none.

The binding is a ContextVar: every thread and greenlet has its own, and a thread that a request starts has none. There
is no default tenant.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from enum import Enum
from typing import Final

from tenant_schemas.errors import NotBound
from tenant_schemas.tenant import Tenant


class Side(Enum):
    """Bindings that are not a tenant."""

    SHARED = "shared"


SHARED: Final = Side.SHARED
Binding = Tenant | Side

_binding: ContextVar[Binding | None] = ContextVar("tenant_schemas.binding", default=None)


def current_binding() -> Binding:
    """The bound tenant, or SHARED. Raises `NotBound` if neither is bound."""
    binding = _binding.get()
    if binding is None:
        raise NotBound("No tenant is bound. Enter `tenant_context(...)`, or `shared_side()` for shared tables.")
    return binding


def current_tenant() -> Tenant:
    """The bound tenant. Raises `NotBound` if no tenant is bound, also on the shared side."""
    binding = current_binding()
    if not isinstance(binding, Tenant):
        raise NotBound("The shared side is bound, but this code needs a tenant. Enter `tenant_context(...)`.")
    return binding


@contextmanager
def bound(binding: Binding) -> Iterator[Binding]:
    """Bind a tenant or SHARED for the block. The previous binding is restored at its end, also after an exception."""
    token = bind(binding)
    try:
        yield binding
    finally:
        unbind(token)


def bind(binding: Binding) -> Token[Binding | None]:
    """Bind without a block, for frameworks with hooks. The caller must `unbind` the returned token."""
    return _binding.set(binding)


def unbind(token: Token[Binding | None]) -> None:
    _binding.reset(token)
