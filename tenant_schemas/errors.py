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
│   └── BindingMismatch     a new connection was not in the schema or the role it was opened for
├── ConnectionsExhausted    the process's cap of connections is in use
├── NameRefused             a slug or schema name outside the rule
├── MigrationError
│   ├── RevisionRefused     not in the history, not to be rendered, not to be undone, or it ends its db transaction
│   └── MigratorBusy        another migrator is at work
├── LifecycleError          a tenant could not be renamed, archived or dropped; nothing of it was done
│   ├── StatusRefused       its status does not allow it
│   ├── RenameRefused       the new name is taken, or something in the schema would still go by the old one
│   └── NotRetired        the schema is no retired one
├── BackupError             a backup, or what is made of one, failed; nothing half done is left
│   ├── TenantChanged     the tenant was migrated meanwhile, again and again
│   ├── TenantDrifted       the tenant's schema is not what its revision says
│   ├── BundleExists        a bundle of that name is there, or being made
│   ├── BundleBroken        no bundle, or not all of it, or not as its manifest says
│   ├── BundleEncrypted        a bundle is encrypted, and not for this identity
│   ├── AgeKeyRefused         a recipient or an identity that is none
│   └── DumpFailed          pg_dump is missing, too old or failed
├── RestoreError            a restore, a verification or a clone failed; nothing of it is left
│   ├── RestoreRefused      the bundle can't become a tenant here: too new, the name is another's, it is being restored
│   ├── UsersDiffer        people of the bundle are missing here, or have other ids
│   ├── VerificationFailed         what was loaded is not what the bundle says
│   └── TenantBusy          the living tenant's tables were in use for too long
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


class BindingMismatch(BindingError):
    """A new connection was not in the schema or the role it was opened for. It was closed unused."""


class ConnectionsExhausted(TenancyError):
    """All connections this process may hold are in use, and none came free in time."""


class NameRefused(TenancyError):
    """A slug or schema name that the rule does not allow."""


class MigrationError(TenancyError):
    """A schema could not be taken along its history. It is where it was."""


class RevisionRefused(MigrationError):
    """A revision that is not in the history, can't be rendered or undone, or ends its db transaction."""


class MigratorBusy(MigrationError):
    """Another migrator is at work on this installation."""


class LifecycleError(TenancyError):
    """A tenant could not be renamed, archived or dropped. Nothing of it was done."""


class StatusRefused(LifecycleError):
    """The tenant's status does not allow it."""


class RenameRefused(LifecycleError):
    """The new name is taken, or something in the schema would still go by the old one."""


class NotRetired(LifecycleError):
    """The schema is no retired one, or a tenant has it."""


class BackupError(TenancyError):
    """A backup, or what is made of one, failed. Nothing half done is left."""


class TenantChanged(BackupError):
    """The tenant was migrated while it was backed up, again and again."""


class TenantDrifted(BackupError):
    """The tenant's schema is not what its revision says, so rows alone would not bring it back."""


class BundleExists(BackupError):
    """A bundle of that name is there, or is being made. None is ever overwritten."""


class BundleBroken(BackupError):
    """What is no bundle, or not all of it, or not as its manifest says."""


class BundleEncrypted(BackupError):
    """A bundle is encrypted, and this identity does not open it."""


class AgeKeyRefused(BackupError):
    """A recipient or an identity that is none."""


class DumpFailed(BackupError):
    """pg_dump is missing, older than the server, or failed. It left no file."""


class RestoreError(TenancyError):
    """A restore, a verification or a clone failed. Nothing of it is left, or its notes say what."""


class RestoreRefused(RestoreError):
    """The bundle can't become a tenant here: it is too new, the name is another's, or it is being restored already."""


class UsersDiffer(RestoreError):
    """People whom the bundle refers to are missing here, or have other ids."""


class VerificationFailed(RestoreError):
    """What was loaded is not what the bundle says, or does not hold."""


class TenantBusy(RestoreError):
    """The living tenant's tables were in use for too long, so it was not replaced."""


class ProvisioningError(TenancyError):
    """A tenant could not be made. Nothing of it remains."""


class TenantExists(ProvisioningError):
    """The slug, the schema or the role is taken."""


class NotPrepared(ProvisioningError):
    """The server lacks the service's roles or the shared schema."""
