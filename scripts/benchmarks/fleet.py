"""What is done to a whole fleet of tenants, each work beside psql with a file of the same statements, in turns.

The engine's calls are timed in a process that is up, and psql from its start to its end. Every outcome is looked at: a
tenant that failed fails the run.
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
from scripts.benchmarks.fleet_ground import Ground, prepared, to_be
from scripts.benchmarks.footprint import OWN, POOL, Footprint, visit_all
from scripts.benchmarks.posting import Announce
from scripts.benchmarks.psql_floor import copy_out, run_psql
from tenant_schemas.migrations.history import History
from tenant_schemas.schema_diff.reference import store_head_fingerprint
from tenant_schemas.tenant import Tenant

MEMBERS = 100
# About how long each step takes, for the progress bar, in seconds for a tenant.
MAKING_SECONDS = 6.0
EXPECTED_SECONDS = {"provisioning": 0.08, "looking": 0.005, "visiting": 0.03, "migrating": 0.02}
# Seconds of our work and of the floor's.
Timing = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for. Everything is measured in so many `rounds`; the migrator has so many `jobs`."""

    tenants: int
    rounds: int
    jobs: int

    @property
    def expected_seconds(self) -> float:
        return MAKING_SECONDS + self.tenants * sum(EXPECTED_SECONDS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be reached. Where a number is missing, that doesn't count."""

    ratio: float = float("inf")
    seconds: float = float("inf")
    per_second: float = 0.0

    def __str__(self) -> str:
        words = {f"≤ {self.ratio:g} ×": self.ratio, f"< {self.seconds:g} s": self.seconds}
        told = [word for word, number in words.items() if number != float("inf")]
        return ", ".join([*told, *([f"≥ {self.per_second:g}/s"] if self.per_second else [])])


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of work: medians of its rounds. The ratio is the median of the rounds' own, for one noise hits both."""

    name: str
    title: str
    tenants_a_round: int
    seconds: float
    floor_seconds: float
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
    lines: Sequence[Line]
    footprints: Sequence[Footprint]


def run(plan: Plan, announce: Announce) -> Report:
    """Make everything, measure, and leave nothing behind. Raises BenchmarkFailed."""

    def begin(what: str) -> None:
        announce(what, EXPECTED_SECONDS[what] * plan.tenants)

    announce("making the server", MAKING_SECONDS)
    with prepared(MEMBERS, plan.jobs) as ground:
        begin("provisioning")
        floor_tenants = [to_be(f"f{number:05}") for number in range(plan.tenants)]
        lines = [_provision(ground, plan, floor_tenants)]
        store_head_fingerprint(ground.engine, MIGRATIONS)  # As the scripts do after they have made tenants.
        begin("looking")
        lines += [_do_nothing(ground, plan), _show_status(ground, plan), _back_up(ground, plan)]
        begin("visiting")
        footprints = [_visit_all(ground, logins) for logins in (OWN, POOL)]
        begin("migrating")
        lines += _migrate(ground, plan, floor_tenants)
        return Report(ground.installation.machine(), lines, footprints)


def _provision(ground: Ground, plan: Plan, floor_tenants: Sequence[Tenant]) -> Line:
    """A part of the fleet in each round."""
    steps = MIGRATIONS.steps(History.TENANT, None)
    timings = []
    for number in range(plan.rounds):
        part = floor_tenants[number :: plan.rounds]
        ours = [to_be(tenant.slug.replace("f", "t")) for tenant in part]
        timings.append(_pair(number, partial(ground.provision, ours), partial(ground.floor.provision, part, steps)))
    return _line("provision", "provision", len(floor_tenants) // plan.rounds, timings, Target(ratio=1.0))


def _migrate(ground: Ground, plan: Plan, floor_tenants: Sequence[Tenant]) -> list[Line]:
    """A column for each tenant in each round. The psql of the second line waits for the disk at no COMMIT either."""
    timings, unwaiting = [], []
    for number in range(plan.rounds):
        before = ground.migrations.head(History.TENANT)
        ground.add_revision(number)
        steps = ground.migrations.steps(History.TENANT, before)
        timing = _pair(number, ground.migrate, partial(ground.floor.migrate, floor_tenants, steps))
        again = [replace(step, sql=step.sql.replace("round", "again")) for step in steps]
        timings.append(timing)
        unwaiting.append((timing[0], _timed(partial(ground.floor.migrate, floor_tenants, again, waits=False))))
    title = f"migrate one column, {plan.jobs} jobs"
    return [
        _line("migrate", title, plan.tenants, timings, Target(ratio=1.0, per_second=800)),
        _line("migrate-unwaiting", f"{title}, psql waits for no disk", plan.tenants, unwaiting, Target()),
    ]


def _do_nothing(ground: Ground, plan: Plan) -> Line:
    query = f"SELECT count(*) FROM shared.tenants WHERE revision <> '{MIGRATIONS.head(History.TENANT)}'"  # noqa: S608
    floor = partial(run_psql, ground.floor.url, f"--command={query}")
    timings = [_pair(number, ground.migrate, floor) for number in range(plan.rounds)]
    return _line("no-op", "migrate with nothing to do", plan.tenants, timings, Target(seconds=0.2))


def _show_status(ground: Ground, plan: Plan) -> Line:
    floor = partial(run_psql, ground.floor.url, "--command=SELECT slug, revision FROM shared.tenants")
    timings = [_pair(number, ground.show_status, floor) for number in range(plan.rounds)]
    return _line("status", "migration_status", plan.tenants, timings, Target(seconds=0.2))


def _back_up(ground: Ground, plan: Plan) -> Line:
    """The floor reads the same tables under one snapshot into compressed files, and proves nothing."""
    tenant = ground.installation.tenants[0]
    tables = ground.tables_of(tenant)
    timings = []
    for number in range(plan.rounds):
        with TemporaryDirectory(prefix="wallet-backup-") as folder:
            floor = partial(copy_out, ground.settings.backup_database_url, tenant.schema_name, tables, Path(folder))
            timings.append(_pair(number, partial(ground.back_up, tenant, Path(folder)), floor))
    return _line("backup", f"backup of one, {MEMBERS} members", 1, timings, Target(seconds=0.1))


def _visit_all(ground: Ground, logins: str) -> Footprint:
    superuser_url = ground.installation.server.superuser_url(DATABASE_NAME)
    return visit_all(ground.settings, superuser_url, ground.tenants(), logins)


def _pair(number: int, ours: Callable[[], object], floor: Callable[[], object]) -> Timing:
    """Time both; in every second round the other way round, so that neither is always first."""
    if number % 2:
        floor_seconds = _timed(floor)
        return _timed(ours), floor_seconds
    return _timed(ours), _timed(floor)


def _timed(work: Callable[[], object]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


def _line(name: str, title: str, tenants_a_round: int, timings: Sequence[Timing], target: Target) -> Line:
    seconds, floor_seconds = (median(each) for each in zip(*timings, strict=True))
    ratio = median(ours / floors for ours, floors in timings)
    return Line(name, title, tenants_a_round, seconds, floor_seconds, ratio, target)


COLUMNS = ("work", "seconds", "psql seconds", "of psql", "tenants per second", "target", "")
FOOTPRINT_COLUMNS = ("logins", "seconds", "backends", "service MiB more", "backends MiB", "largest backend MiB")


def rows(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            line.title,
            f"{line.seconds:.3f}",
            f"{line.floor_seconds:.3f}",
            f"{line.ratio:.2f} ×",
            f"{line.per_second:,.0f}",
            str(line.target),
            "" if line.target == Target() else "met" if line.is_met else "NOT MET",
        )
        for line in report.lines
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
        line.name: {
            "title": line.title,
            "seconds": round(line.seconds, 4),
            "psql_seconds": round(line.floor_seconds, 4),
            "ratio_to_psql": round(line.ratio, 3),
            "tenants_per_second": round(line.per_second, 1),
            "target": str(line.target),
            "is_met": line.is_met,
        }
        for line in report.lines
    }
    return {"machine": report.machine, "works": works, "footprints": [asdict(each) for each in report.footprints]}
