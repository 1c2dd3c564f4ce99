"""The phases of the migration as runs over all members of the bound tenant, in batches.

Each batch is a db transaction of its own. After a kill, run it again: committed batches are not repeated. A dry run
makes the same calls and rolls each batch back.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import groupby
from operator import attrgetter
from typing import Final
from uuid import UUID

from app.db import db
from app.opening_balances import service
from app.opening_balances.calculation import Announce, Balance, Calculation
from app.opening_balances.models import Reconciliation
from app.opening_balances.report import ReconciliationFile, Report
from app.opening_balances.rows import Directory
from tenant_schemas.flask import shared_side

NO_ROWS: Final = sha256().hexdigest()
_NAMES_AT_ONCE: Final = 1_000


@contextmanager
def _one_batch(*, is_dry: bool) -> Iterator[None]:
    try:
        yield
    except BaseException:
        db.session.rollback()
        raise
    if is_dry:
        db.session.rollback()
    else:
        db.session.commit()


def read_directory() -> Directory:
    with _one_batch(is_dry=False):
        return service.directory()


def initialize(currency: str, *, batch: int, is_dry: bool, announce: Announce) -> int:
    """Open a wallet in the currency for every member without one. Returns the number of opened wallets."""
    opened = done = 0
    with _one_batch(is_dry=is_dry):
        members = service.count_members()
    after: UUID | None = None
    while True:
        with _one_batch(is_dry=is_dry):
            user_ids = service.member_ids(after=after, limit=batch)
            if not user_ids:
                return opened
            opened += service.open_missing(user_ids, currency)
        after = user_ids[-1]
        done += len(user_ids)
        announce(done, max(members, done))


def name_strangers(calculation: Calculation) -> None:
    """Tell users of other tenants from unknown users, for the operator's report. Works on the shared side."""
    for names in calculation.strangers(_NAMES_AT_ONCE):
        with shared_side(), _one_batch(is_dry=False):
            calculation.are_elsewhere(service.users_among(names))


Bring = Callable[[Sequence[Balance]], list[service.Outcome]]


def run_balances(
    calculation: Calculation,
    bring: Bring,
    people: Directory,
    file: ReconciliationFile,
    *,
    batch: int,
    is_dry: bool,
    announce: Announce,
) -> Report:
    """Post or compare the balances of all members without wrong rows; `bring` selects which."""
    report = Report()
    total, done = calculation.count_balances(), 0
    for balances in calculation.batches(batch):
        with _one_batch(is_dry=is_dry):
            outcomes = bring(balances)
        report.add(outcomes)
        for outcome in outcomes:
            file.write(outcome, people[str(outcome.user_id)].email)
        done += len(balances)
        announce(done, total)
    for user_id in calculation.left_out():
        file.left_out(user_id, people[user_id].email)
    return report


def run_remembered(
    report: Report,
    file: ReconciliationFile,
    calculation: Calculation | None,
    *,
    batch: int,
    is_dry: bool,
    announce: Announce,
) -> None:
    """Compare the stored calculated balances. With a calculation, only those of members who are no longer in its files:
    their calculated balance is zero.
    """
    with _one_batch(is_dry=is_dry):
        total, done = service.count_remembered(), 0
    after: tuple[UUID, str] | None = None
    while True:
        with _one_batch(is_dry=is_dry):
            page = service.remembered(after=after, limit=batch)
            if not page:
                return
            after = (page[-1].user_id, page[-1].currency)
            done += len(page)
            meant = [found for found in page if calculation is None or _is_gone(found, calculation)]
            outcomes = _compare_page(meant, is_gone=calculation is not None)
            emails = service.emails_of([outcome.user_id for outcome in outcomes])
        report.add(outcomes)
        for outcome in outcomes:
            file.write(outcome, emails.get(outcome.user_id, ""))
        announce(done, max(done, total))


def _is_gone(found: Reconciliation, calculation: Calculation) -> bool:
    user_id = str(found.user_id)
    return not calculation.has_balance(found.currency, user_id) and not calculation.has_left_out(user_id)


def _compare_page(page: Sequence[Reconciliation], *, is_gone: bool) -> list[service.Outcome]:
    outcomes: list[service.Outcome] = []
    by_currency = attrgetter("currency")
    for _, group in groupby(sorted(page, key=by_currency), by_currency):
        found = list(group)
        refusals = {str(each.user_id): each.refused_by for each in found if each.refused_by and not is_gone}
        outcomes += service.compare_openings([_balance(each, is_gone=is_gone) for each in found], refusals)
    return outcomes


def _balance(found: Reconciliation, *, is_gone: bool) -> Balance:
    user_id = str(found.user_id)
    if is_gone:
        return Balance(found.currency, user_id, 0, 0, NO_ROWS)
    return Balance(found.currency, user_id, found.calculated_minor, found.source_rows, found.source_hash)
