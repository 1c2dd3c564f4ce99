"""Who is to be taken where, by which steps and in which order. Asks the registry, and changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from sqlalchemy import Connection

from tenant_schemas import registry
from tenant_schemas.errors import RevisionRefused, TenantNotFound
from tenant_schemas.migrations.history import History, Migrations, Outcome
from tenant_schemas.migrations.render import Step
from tenant_schemas.tenant import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateOptions:
    """How a run is to go: `shared` and then all tenants to their heads, unless tenants alone are to go `to` a revision,
    or `shared` alone `shared_to` one; up or down.

    `canaries` (slugs) go first, then `share_percent` of the others, then the rest; each wave begins when the one before
    has ended with no more failures than the budget. Without waves there is no budget, unless one is given.
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
    def has_waves(self) -> bool:
        return bool(self.canaries) or self.share_percent is not None

    @property
    def budget(self) -> float:
        """How many tenants may fail before no more are begun."""
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
    """One tenant, as the plan found it, and its way."""

    tenant: Tenant
    steps: tuple[Step, ...] = field(repr=False)
    wave: int
    attempts: int = 0

    @property
    def target(self) -> str:
        return self.steps[-1].after or ""

    @property
    def runs_python(self) -> bool:
        return any(step.runs_python for step in self.steps)


@dataclass(frozen=True, slots=True)
class Plan:
    """`waves` are what there is to do; `without_steps` are the tenants that are there already, or that have no way there."""

    target: str
    waves: tuple[tuple[TenantMigration, ...], ...]
    without_steps: tuple[Outcome, ...]

    @property
    def migrations(self) -> tuple[TenantMigration, ...]:
        return tuple(work for wave in self.waves for work in wave)


def make_plan(connection: Connection, migrations: Migrations, options: MigrateOptions) -> Plan:
    """Look where every tenant is, or those named, and where it should be. Raises TenantNotFound for a name that nobody
    has, RevisionRefused for a target that is not in the history.
    """
    target = options.to or migrations.head(History.TENANT)
    if not options.moves_tenants:
        return Plan(target, (), ())
    migrations.history(History.TENANT).steps(target, target)
    # Canaries are named too: a slip of the pen must not make a wave of nobody.
    named = {slug: registry.get_tenant(connection, slug) for slug in (*options.slugs, *options.canaries)}
    if options.slugs and not set(options.canaries) <= set(options.slugs):
        raise TenantNotFound("A canary is not among the tenants that were named.")
    tenants = [named[slug] for slug in dict.fromkeys(options.slugs)] or registry.all_tenants(connection)
    settled, ways = [], {}
    for revision in {tenant.revision for tenant in tenants}:
        try:
            ways[revision] = migrations.steps(History.TENANT, revision, target)
        except RevisionRefused as error:
            reason = f"{type(error).__name__}: {error}"
            settled += [_stay(tenant, reason) for tenant in tenants if tenant.revision == revision]
    settled += [_stay(tenant) for tenant in tenants if ways.get(tenant.revision) == ()]
    behind = [tenant for tenant in tenants if ways.get(tenant.revision)]
    waves = (
        tuple(TenantMigration(tenant, ways[tenant.revision], number) for tenant in wave)
        for number, wave in enumerate(_waves(behind, options), start=1)
    )
    return Plan(target, tuple(waves), tuple(settled))


def _stay(tenant: Tenant, reason: str | None = None) -> Outcome:
    return Outcome(tenant.schema_name, tenant.slug, tenant.revision, tenant.revision, reason, attempts=0)


def _waves(tenants: Sequence[Tenant], options: MigrateOptions) -> list[list[Tenant]]:
    """The canaries, a share of the others, and the rest; no wave of nobody."""
    first = [tenant for tenant in tenants if tenant.slug in options.canaries]
    others = [tenant for tenant in tenants if tenant.slug not in options.canaries]
    share = ceil(len(others) * (options.share_percent or 0) / 100)
    return [wave for wave in (first, others[:share], others[share:]) if wave]
