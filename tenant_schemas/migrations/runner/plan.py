"""Plans a run: which tenants migrate, by which steps and in which waves. Reads the registry and changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from sqlalchemy import Connection

from tenant_schemas import registry
from tenant_schemas.errors import RevisionRefused, SchemaMissing, TenantNotFound
from tenant_schemas.migrations.history import History, Migrations, Outcome
from tenant_schemas.migrations.render import Step, legs_of
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import missing_schemas


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateOptions:
    """Options of a run. By default `shared` and then all tenants migrate to their heads. With `to` only tenants
    migrate, up or down to that revision; with `shared_to` only `shared` does.

    The waves are: the `canaries` (slugs), `share_percent` of the other tenants, the rest. A wave starts when the one
    before has ended and the failures are within the budget. Without waves the budget is unlimited, unless one is given.
    """

    slugs: tuple[str, ...] = ()
    to: str | None = None
    shared_to: str | None = None
    jobs: int = 2
    lock_timeout_ms: int = 2_000
    statement_timeout_ms: int = 600_000
    attempts: int = 6
    first_delay_seconds: float = 0.5
    canaries: tuple[str, ...] = ()
    share_percent: float | None = None
    failure_budget: int | None = None
    is_atomic: bool = False
    wait_seconds: float = 0

    @property
    def timeouts(self) -> dict[str, int]:
        return {"lock_timeout_ms": self.lock_timeout_ms, "statement_timeout_ms": self.statement_timeout_ms}

    @property
    def has_waves(self) -> bool:
        return bool(self.canaries) or self.share_percent is not None

    @property
    def names_tenants(self) -> bool:
        """Whether it names tenants or a revision of theirs, which may not exist."""
        return bool(self.slugs or self.canaries or self.to)

    @property
    def budget(self) -> float:
        """The number of tenants that may fail before no more are started."""
        if self.failure_budget is not None:
            return self.failure_budget
        return 0 if self.has_waves else float("inf")

    @property
    def moves_shared(self) -> bool:
        return self.to is None

    @property
    def moves_tenants(self) -> bool:
        return self.shared_to is None


@dataclass(frozen=True, slots=True)
class TenantMigration:
    """One tenant as the plan read it, and its steps."""

    tenant: Tenant
    steps: tuple[Step, ...] = field(repr=False)
    wave: int
    attempts: int = 0

    @property
    def target(self) -> str:
        return self.steps[-1].after or ""

    @property
    def goes_alone(self) -> bool:
        """Whether one message can't have all of it."""
        return any(step.runs_python or step.concurrent for step in self.steps)

    @property
    def legs(self) -> tuple["TenantMigration", ...]:
        """The parts that are committed one after another."""
        return tuple(self.of_steps(steps) for steps in legs_of(self.steps))

    def of_steps(self, steps: tuple[Step, ...]) -> "TenantMigration":
        """The same tenant where these steps begin."""
        return replace(self, tenant=replace(self.tenant, revision=steps[0].before or ""), steps=steps)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a run. `waves` are the tenants to migrate; `without_steps` are the outcomes of tenants that are at
    the target already, or newer than this code, whose revision has no steps to it, or whose schema is gone.
    """

    target: str
    waves: tuple[tuple[TenantMigration, ...], ...]
    without_steps: tuple[Outcome, ...]

    @property
    def tenant_migrations(self) -> tuple[TenantMigration, ...]:
        return tuple(migration for wave in self.waves for migration in wave)


def make_plan(connection: Connection, migrations: Migrations, options: MigrateOptions) -> Plan:
    """Plan the steps of all tenants, or of the named ones. Raises TenantNotFound for an unknown slug, RevisionRefused
    for a target that is not in the history.
    """
    target = options.to or migrations.head(History.TENANT)
    if not options.moves_tenants:
        return Plan(target, (), ())
    migrations.history(History.TENANT).steps(target, target)
    # Canaries are looked up too, so that a misspelt canary is an error and not a missing first wave.
    named = {slug: registry.get_tenant(connection, slug) for slug in (*options.slugs, *options.canaries)}
    if options.slugs and not set(options.canaries) <= set(options.slugs):
        unnamed = ", ".join(sorted(set(options.canaries) - set(options.slugs)))
        raise TenantNotFound(f"The canaries {unnamed} are not among the named tenants: name them too (--tenant).")
    tenants = [named[slug] for slug in dict.fromkeys(options.slugs)] or registry.all_tenants(connection)
    missing = missing_schemas(connection, tenants)
    without_steps = [
        _outcome_without_steps(tenant, str(SchemaMissing.of(tenant)))
        for tenant in tenants
        if tenant.schema_name in missing
    ]
    tenants = [tenant for tenant in tenants if tenant.schema_name not in missing]
    steps_from = {}
    for revision in {tenant.revision for tenant in tenants}:
        try:
            steps_from[revision] = migrations.steps(History.TENANT, revision, target)
        except RevisionRefused as error:
            note = None if options.to else migrations.newer_note(History.TENANT, revision)
            reason = None if note else f"{type(error).__name__}: {error}"
            without_steps += [
                _outcome_without_steps(tenant, reason, note) for tenant in tenants if tenant.revision == revision
            ]
    without_steps += [_outcome_without_steps(tenant) for tenant in tenants if steps_from.get(tenant.revision) == ()]
    behind = [tenant for tenant in tenants if steps_from.get(tenant.revision)]
    waves = (
        tuple(TenantMigration(tenant, steps_from[tenant.revision], number) for tenant in wave)
        for number, wave in enumerate(_waves(behind, options), start=1)
    )
    return Plan(target, tuple(waves), tuple(without_steps))


def _outcome_without_steps(tenant: Tenant, reason: str | None = None, note: str | None = None) -> Outcome:
    return Outcome(tenant.schema_name, tenant.slug, tenant.revision, tenant.revision, reason, attempts=0, note=note)


def _waves(tenants: Sequence[Tenant], options: MigrateOptions) -> list[list[Tenant]]:
    """The canaries, a share of the other tenants, and the rest, without empty waves."""
    canaries = [tenant for tenant in tenants if tenant.slug in options.canaries]
    others = [tenant for tenant in tenants if tenant.slug not in options.canaries]
    share = ceil(len(others) * (options.share_percent or 0) / 100)
    return [wave for wave in (canaries, others[:share], others[share:]) if wave]
