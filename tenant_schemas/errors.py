"""Every error the engine raises on purpose.

TenancyError
├── TenantRequired          nothing in the request names a tenant
├── TenantAmbiguous         two things in the request name different tenants
├── TenantNotFound          unknown, or not to be used now
├── SchemaBehind            the tenant's schema is older than this code can serve
├── BindingError
│   ├── NotBound            a db transaction began with no tenant bound and the shared side not asked for
│   ├── BindingChanged      another tenant was bound while a db transaction was open
│   ├── BindingRefused      a way round the binding: AUTOCOMMIT, raw_connection(), a read-only flag
│   └── BindingUnproven     a new connection was not in the schema or the role it was opened for
├── ConnectionsExhausted    the process's cap of connections is in use
├── NameRefused             a slug or schema name outside the rule
└── ProvisioningError
    ├── TenantExists        slug, schema or role is taken
    └── NotPrepared         the server lacks the service's roles or the shared schema
"""


class TenancyError(Exception):
    """The root: catch it to catch them all."""


class TenantRequired(TenancyError):
    """Nothing in the request names a tenant."""


class TenantAmbiguous(TenancyError):
    """Two things in the request name different tenants."""


class TenantNotFound(TenancyError):
    """No such tenant, or one that may not be used now. The two look alike on purpose."""


class SchemaBehind(TenancyError):
    """The tenant's schema is at an older revision than this code can serve."""


class BindingError(TenancyError):
    """A db transaction could not be tied to exactly one tenant or to the shared side."""


class NotBound(BindingError):
    """No tenant is bound and the shared side was not asked for by name."""


class BindingChanged(BindingError):
    """Another tenant was bound while a db transaction was open."""


class BindingRefused(BindingError):
    """A way round the binding was tried."""


class BindingUnproven(BindingError):
    """A new connection was not in the schema or the role it was opened for. It was closed unused."""


class ConnectionsExhausted(TenancyError):
    """All connections this process may hold are in use, and none came free in time."""


class NameRefused(TenancyError):
    """A slug or schema name that the rule does not allow."""


class ProvisioningError(TenancyError):
    """A tenant could not be made. Nothing of it remains."""


class TenantExists(ProvisioningError):
    """The slug, the schema or the role is taken."""


class NotPrepared(ProvisioningError):
    """The server lacks the service's roles or the shared schema."""
