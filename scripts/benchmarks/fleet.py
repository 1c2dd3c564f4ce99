"""Work on a whole fleet of tenants, compared with psql and a file of the same statements, in turns.

The engine's functions are timed in a running process, psql from its start to its end. A tenant that fails ends the
benchmark.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from app.config import DATABASE_NAME
from app.tenancy import MIGRATIONS
from scripts.benchmarks.fleet_installation import FleetInstallation, fleet_installation, planned_tenant
from scripts.benchmarks.footprint import OWN, POOL, Footprint, visit_all
from scripts.benchmarks.posting import Announce
from scripts.benchmarks.psql_baseline import copy_out, run_psql
from tenant_schemas.migrations.history import History
from tenant_schemas.schema_diff.reference import store_head_fingerprint
from tenant_schemas.tenant import Tenant

MEMBERS = 100
# The expected seconds of each step for one tenant, for the progress bar.
MAKING_SECONDS = 6.0
EXPECTED_SECONDS = {"provisioning": 0.08, "reading": 0.025, "visiting": 0.03, "migrating": 0.02}
# A full look for drift costs as much as all other reading together: more of them would say nothing more.
FULL_LOOKS = 2
DRIFT_SECONDS = 0.000_5  # for each tenant
# The seconds of the engine and of psql.
Timing = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options. Each kind of work is measured `rounds` times; the migrator works on `jobs` tenants at once."""

    tenants: int
    rounds: int
    jobs: int

    @property
    def expected_seconds(self) -> float:
        return MAKING_SECONDS + self.tenants * sum(EXPECTED_SECONDS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The goal for one kind of work. A number that is not given does not count."""

    ratio: float = float("inf")
    seconds: float = float("inf")
    per_second: float = 0.0

    def __str__(self) -> str:
        limits = {f"≤ {self.ratio:g} ×": self.ratio, f"< {self.seconds:g} s": self.seconds}
        given = [text for text, number in limits.items() if number != float("inf")]
        return ", ".join([*given, *([f"≥ {self.per_second:g}/s"] if self.per_second else [])])


@dataclass(frozen=True, slots=True)
class Comparison:
    """One kind of work by the engine and by psql, as medians of the rounds. `ratio` is the median of the rounds'
    ratios, because other load on the machine slows both times of a round.
    """

    name: str
    title: str
    tenants_a_round: int
    seconds: float
    psql_seconds: float
    ratio: float
    target: Target

    @property
    def per_second(self) -> float:
        return self.tenants_a_round / self.seconds

    @property
    def is_met(self) -> bool:
        target = self.target
        return self.ratio <= target.ratio and self.seconds < target.seconds and self.per_second >= target.per_second


@dataclass(frozen=True, slots=True)
class Report:
    machine: dict[str, Any]
    comparisons: Sequence[Comparison]
    footprints: Sequence[Footprint]


def run(plan: Plan, announce: Announce) -> Report:
    """Set up an installation, measure, and remove everything. Raises BenchmarkFailed."""

    def begin(step: str) -> None:
        announce(step, EXPECTED_SECONDS[step] * plan.tenants)

    announce("making the server", MAKING_SECONDS)
    with fleet_installation(MEMBERS, plan.jobs) as fleet:
        begin("provisioning")
        psql_tenants = [planned_tenant(f"f{number:05}") for number in range(plan.tenants)]
        comparisons = [_provision(fleet, plan, psql_tenants)]
        store_head_fingerprint(fleet.engine, MIGRATIONS)  # As `provision_tenant` does at its end.
        begin("reading")
        comparisons += [_migrate_nothing(fleet, plan), _show_status(fleet, plan)]
        comparisons += [_find_drift(fleet, plan), _back_up(fleet, plan)]
        begin("visiting")
        footprints = [_visit_all(fleet, logins) for logins in (OWN, POOL)]
        begin("migrating")
        comparisons += _migrate(fleet, plan, psql_tenants)
        return Report(fleet.installation.machine(), comparisons, footprints)


def _provision(fleet: FleetInstallation, plan: Plan, psql_tenants: Sequence[Tenant]) -> Comparison:
    """Provisions a part of the fleet in each round."""
    steps = MIGRATIONS.steps(History.TENANT, None)
    timings = []
    for number in range(plan.rounds):
        part = psql_tenants[number :: plan.rounds]
        own_part = [planned_tenant(tenant.slug.replace("f", "t")) for tenant in part]
        timings.append(
            _time_both(number, partial(fleet.provision, own_part), partial(fleet.baseline.provision, part, steps))
        )
    return _comparison("provision", "provision", len(psql_tenants) // plan.rounds, timings, Target(ratio=1.0))


def _migrate(fleet: FleetInstallation, plan: Plan, psql_tenants: Sequence[Tenant]) -> list[Comparison]:
    """Adds a column in each tenant in each round. In the second comparison psql commits asynchronously, as the engine
    does.
    """
    timings, asynchronous = [], []
    for number in range(plan.rounds):
        before = fleet.migrations.head(History.TENANT)
        fleet.add_revision(number)
        steps = fleet.migrations.steps(History.TENANT, before)
        timing = _time_both(number, fleet.migrate, partial(fleet.baseline.migrate, psql_tenants, steps))
        again = [replace(step, sql=step.sql.replace("round", "again")) for step in steps]
        timings.append(timing)
        asynchronous.append(
            (timing[0], _timed(partial(fleet.baseline.migrate, psql_tenants, again, waits_for_disk=False)))
        )
    title = f"migrate one column, {plan.jobs} jobs"
    return [
        _comparison("migrate", title, plan.tenants, timings, Target(ratio=0.8, per_second=800)),
        _comparison(
            "migrate-unwaiting", f"{title}, psql with asynchronous commit", plan.tenants, asynchronous, Target()
        ),
    ]


def _migrate_nothing(fleet: FleetInstallation, plan: Plan) -> Comparison:
    query = f"SELECT count(*) FROM shared.tenants WHERE revision <> '{MIGRATIONS.head(History.TENANT)}'"  # noqa: S608
    psql = partial(run_psql, fleet.baseline.url, f"--command={query}")
    timings = [_time_both(number, fleet.migrate, psql) for number in range(plan.rounds)]
    return _comparison("no-op", "migrate with nothing to do", plan.tenants, timings, Target(seconds=0.1))


def _show_status(fleet: FleetInstallation, plan: Plan) -> Comparison:
    psql = partial(run_psql, fleet.baseline.url, "--command=SELECT slug, revision FROM shared.tenants")
    timings = [_time_both(number, fleet.show_status, psql) for number in range(plan.rounds)]
    return _comparison("status", "migration_status", plan.tenants, timings, Target(seconds=0.2))


def _find_drift(fleet: FleetInstallation, plan: Plan) -> Comparison:
    """Where no schema has changed since the last look. A full look stands in psql's place."""
    fleet.find_drift(is_full=True)
    stamped, full = fleet.find_drift, partial(fleet.find_drift, is_full=True)
    timings = [_time_both(number, stamped, full) for number in range(min(plan.rounds, FULL_LOOKS))]
    title, target = "drift of unchanged schemas, against a full look", Target(seconds=DRIFT_SECONDS * plan.tenants)
    return _comparison("drift", title, plan.tenants, timings, target)


def _back_up(fleet: FleetInstallation, plan: Plan) -> Comparison:
    """psql copies the same tables, as of one snapshot, to compressed files, and verifies nothing."""
    tenant = fleet.installation.tenants[0]
    tables = fleet.tables_of(tenant)
    timings = []
    for number in range(plan.rounds):
        with TemporaryDirectory(prefix="wallet-backup-") as folder:
            psql = partial(copy_out, fleet.settings.backup_database_url, tenant.schema_name, tables, Path(folder))
            timings.append(_time_both(number, partial(fleet.back_up, tenant, Path(folder)), psql))
    return _comparison("backup", f"backup of one, {MEMBERS} members", 1, timings, Target(seconds=0.1))


def _visit_all(fleet: FleetInstallation, logins: str) -> Footprint:
    superuser_url = fleet.installation.server.superuser_url(DATABASE_NAME)
    return visit_all(fleet.settings, superuser_url, fleet.tenants(), logins)


def _time_both(number: int, engine: Callable[[], object], psql: Callable[[], object]) -> Timing:
    """Time both, in every second round in the other order, so that neither is always first."""
    if number % 2:
        psql_seconds = _timed(psql)
        return _timed(engine), psql_seconds
    return _timed(engine), _timed(psql)


def _timed(work: Callable[[], object]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


def _comparison(name: str, title: str, tenants_a_round: int, timings: Sequence[Timing], target: Target) -> Comparison:
    seconds, psql_seconds = (median(each) for each in zip(*timings, strict=True))
    ratio = median(engine / psql for engine, psql in timings)
    return Comparison(name, title, tenants_a_round, seconds, psql_seconds, ratio, target)


COLUMNS = ("work", "seconds", "psql seconds", "ratio to psql", "tenants per second", "target", "")
FOOTPRINT_COLUMNS = ("logins", "seconds", "backends", "service MiB more", "backends MiB", "largest backend MiB")


def rows(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            each.title,
            f"{each.seconds:.3f}",
            f"{each.psql_seconds:.3f}",
            f"{each.ratio:.2f} ×",
            f"{each.per_second:,.0f}",
            str(each.target),
            "" if each.target == Target() else "met" if each.is_met else "NOT MET",
        )
        for each in report.comparisons
    ]


def footprint_rows(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            each.logins,
            f"{each.seconds:.2f}",
            str(each.backends),
            f"{each.service_mib:.1f}",
            f"{each.backends_mib:.1f}",
            f"{each.largest_backend_mib:.1f}",
        )
        for each in report.footprints
    ]


def as_json(report: Report) -> dict[str, Any]:
    works = {
        each.name: {
            "title": each.title,
            "seconds": round(each.seconds, 4),
            "psql_seconds": round(each.psql_seconds, 4),
            "ratio_to_psql": round(each.ratio, 3),
            "tenants_per_second": round(each.per_second, 1),
            "target": str(each.target),
            "is_met": each.is_met,
        }
        for each in report.comparisons
    }
    return {"machine": report.machine, "works": works, "footprints": [asdict(each) for each in report.footprints]}
