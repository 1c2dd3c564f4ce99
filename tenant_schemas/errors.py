"""All errors that the engine raises on purpose.

TenancyError
├── TenantRequired          the request names no tenant
├── TenantAmbiguous         the request names two tenants
├── TenantNotFound          the tenant is unknown, or not active
├── SchemaBehind            the tenant's schema is older than this code supports
├── SchemaMissing           the registry has the tenant, and its schema does not exist
├── BindingError
│   ├── NotBound            a db transaction began without a tenant or the shared side bound
│   ├── BindingChanged      another tenant was bound in an open db transaction, or an object is another tenant's
│   ├── BindingRefused      the code tried to bypass the binding: AUTOCOMMIT, raw_connection(), a read-only flag,
│   │                       bind_request outside a request
│   └── BindingMismatch     a connection is not in the schema or the role of its binding
├── ConnectionsExhausted    all connections that this process may open are in use
├── NameRefused             the slug or schema name is not valid
├── SecretRefused           a secret of the settings is not that of the installation
├── AcceptedDriftRefused    the file of accepted differences is not valid
├── MigrationError
│   ├── RevisionRefused     the revision is unknown, can't be rendered or undone, or ends its db transaction
│   └── MigratorBusy        another migrator is running
├── LifecycleError          a tenant could not be renamed, archived or dropped; nothing was changed
│   ├── StatusRefused       the tenant's status does not allow it
│   ├── RenameRefused       the new name is taken, or an object in the schema would keep the old name
│   ├── NotRetired          the schema is not retired, or a tenant uses it
│   └── RepairRefused       the repair needs a superuser, or the schema to adopt is not the tenant's
├── BackupError             a backup failed, or a bundle could not be read; no incomplete file is left
│   ├── TenantChanged       the tenant was migrated during each attempt of the backup
│   ├── TenantDrifted       the tenant's schema differs from its revision in what a restore needs
│   ├── BundleExists        a bundle of that name exists, or is being written
│   ├── BundleBroken        the bundle is incomplete, or differs from its manifest
│   ├── BundleForeign       no key of this installation signed the bundle
│   ├── BundleEncrypted     the bundle is encrypted for other recipients
│   ├── KeyRefused          a recipient, an identity or a key file is not valid
│   └── DumpFailed          pg_dump is missing, too old, or failed
├── RestoreError            a restore, a verification or a clone failed; nothing of it is left
│   ├── RestoreRefused      the bundle is too new, its name is taken, or it is being restored
│   ├── UsersDiffer         users of the bundle are missing here, or have other ids
│   ├── VerificationFailed  the restored data differs from the bundle
│   └── TenantBusy          the tenant's tables were in use for too long
└── ProvisioningError
    ├── TenantExists        the slug, the schema or the role exists
    └── NotPrepared         the server lacks the service's roles or the shared schema
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenant_schemas.tenant import Tenant


class TenancyError(Exception):
    """The root of all errors of the engine."""


class TenantRequired(TenancyError):
    """The request names no tenant."""


class TenantAmbiguous(TenancyError):
    """The request names two tenants."""


class TenantNotFound(TenancyError):
    """The tenant is unknown, or not active. Both look the same on purpose."""


class SchemaBehind(TenancyError):
    """The tenant's schema is at an older revision than this code supports."""


class SchemaMissing(TenancyError):
    """The tenant's data is missing on the server: an operator must restore it, and no repetition helps."""

    @classmethod
    def of(cls, tenant: "Tenant") -> "SchemaMissing":
        return cls(
            f"Schema {tenant.schema_name} of tenant {tenant.slug} is gone: the registry has the tenant, and the schema"
            " does not exist. Restore the tenant from a backup, or correct its row in shared.tenants."
        )


class BindingError(TenancyError):
    """A db transaction could not be bound to exactly one tenant or to the shared side."""


class NotBound(BindingError):
    """Neither a tenant nor the shared side is bound."""


class BindingChanged(BindingError):
    """Another tenant was bound in an open db transaction, or an object or a result belongs to another binding."""


class BindingRefused(BindingError):
    """The code tried to bypass the binding."""


class BindingMismatch(BindingError):
    """A connection is not in the schema or the role of its binding. A new one was closed unused."""


class ConnectionsExhausted(TenancyError):
    """All connections that this process may open are in use, and none was returned in time."""


class NameRefused(TenancyError):
    """The slug or schema name is not valid."""


class SecretRefused(TenancyError):
    """A secret of the settings is not that of the installation. Nothing was changed."""


class AcceptedDriftRefused(TenancyError):
    """The file of accepted differences can't be read, or one of its lines names no object."""


class MigrationError(TenancyError):
    """A schema could not be migrated. It keeps its revision."""


class RevisionRefused(MigrationError):
    """The revision is not in the history, can't be rendered or undone, or ends its db transaction."""


class MigratorBusy(MigrationError):
    """Another migrator is running on this installation."""


class LifecycleError(TenancyError):
    """A tenant could not be renamed, archived or dropped. Nothing was changed."""


class StatusRefused(LifecycleError):
    """The tenant's status does not allow it."""


class RenameRefused(LifecycleError):
    """The new name is taken, or an object in the schema would keep the old name."""


class NotRetired(LifecycleError):
    """The schema is not retired, or a tenant uses it."""


class RepairRefused(LifecycleError):
    """The repair needs a superuser, or the schema to adopt is not the tenant's."""


class BackupError(TenancyError):
    """A backup failed, or a bundle could not be read. No incomplete file is left."""


class TenantChanged(BackupError):
    """The tenant was migrated during each attempt of the backup."""


class TenantDrifted(BackupError):
    """The tenant's schema differs from its revision, so that its rows may not fit the schema that a restore makes."""


class BundleExists(BackupError):
    """A bundle of that name exists, or is being written. Bundles are never overwritten."""


class BundleBroken(BackupError):
    """The bundle is incomplete, or differs from its manifest."""


class BundleForeign(BackupError):
    """No key of this installation signed the bundle."""


class BundleEncrypted(BackupError):
    """The bundle is encrypted, and none of the given identities decrypts it."""


class KeyRefused(BackupError):
    """A recipient or an identity (keys of age), or a file of bundle keys, is not valid."""


class DumpFailed(BackupError):
    """pg_dump is missing, older than the server, or failed. It left no file."""


class RestoreError(TenancyError):
    """A restore, a verification or a clone failed. Nothing of it is left, except objects that its notes name."""


class RestoreRefused(RestoreError):
    """The bundle is too new, its name belongs to another tenant, or it is already being restored."""


class UsersDiffer(RestoreError):
    """Users that the bundle refers to are missing here, or have other ids."""


class VerificationFailed(RestoreError):
    """The restored data differs from the bundle, or fails the application's checks."""


class TenantBusy(RestoreError):
    """The tenant's tables were in use for too long, so the tenant was not replaced."""


class ProvisioningError(TenancyError):
    """A tenant could not be provisioned. Nothing of it remains."""


class TenantExists(ProvisioningError):
    """The slug, the schema or the role exists."""


class NotPrepared(ProvisioningError):
    """The server lacks the service's roles or the shared schema."""
