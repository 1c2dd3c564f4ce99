"""Tells what a restore would change, in words and amounts of this application: the money, movements and rows since the
bundle, and the members and settings, which stay.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.money import format_minor
from tenant_schemas.backup.manifest import Manifest
from tenant_schemas.printable import printable
from tenant_schemas.restore.preview import Living, Preview
from tenant_schemas.schema_diff.effects import told

_OBJECTS_AT_MOST: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrencyChange:
    """The wallets of one currency and the sum of their balances, today and in the bundle."""

    currency: str
    wallets: int
    wallets_restored: int
    balance: str
    balance_restored: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerChange:
    """The ledger entries between two accounts that are not in the bundle: their number and sum, negative if the bundle
    has more.
    """

    currency: str
    debit: str
    credit: str
    entries: int
    amount: str


def currency_changes(manifest: Manifest, living: Living) -> list[CurrencyChange]:
    """Each currency of today or of the bundle, also without a change."""
    now, then = (_by(proof, "wallets", "currency") for proof in (living.proof, manifest.proof))
    return [
        CurrencyChange(
            currency=currency,
            wallets=now.get(key, {}).get("wallets", 0),
            wallets_restored=then.get(key, {}).get("wallets", 0),
            balance=format_minor(_minor(now, key, "balanceMinor"), currency),
            balance_restored=format_minor(_minor(then, key, "balanceMinor"), currency),
        )
        for key in sorted(now.keys() | then.keys())
        for (currency,) in [key]
    ]


def ledger_changes(manifest: Manifest, living: Living) -> list[LedgerChange]:
    """The entries that a restore would remove, by currency and accounts."""
    names = ("currency", "debit", "credit")
    now, then = (_by(proof, "ledger", *names) for proof in (living.proof, manifest.proof))
    changes = []
    for key in sorted(now.keys() | then.keys()):
        entries = now.get(key, {}).get("entries", 0) - then.get(key, {}).get("entries", 0)
        amount_minor = _minor(now, key, "amountMinor") - _minor(then, key, "amountMinor")
        if entries or amount_minor:
            currency, debit, credit = key
            amount = format_minor(amount_minor, currency)
            changes.append(LedgerChange(currency=currency, debit=debit, credit=credit, entries=entries, amount=amount))
    return changes


def _by(proof: Mapping[str, Any], part: str, *names: str) -> dict[tuple[str, ...], Mapping[str, Any]]:
    return {tuple(row[name] for name in names): row for row in proof.get(part, [])}


def _minor(rows: Mapping[tuple[str, ...], Mapping[str, Any]], key: tuple[str, ...], name: str) -> int:
    return int(rows.get(key, {}).get(name) or 0)


def row_changes(manifest: Manifest, living: Living) -> dict[str, tuple[int, int]]:
    """By table, the rows of today and those of the bundle, where they differ."""
    then = {file.name: file.rows for file in manifest.tables}
    names = sorted(then.keys() | living.rows.keys())
    found = {name: (living.rows.get(name, 0), then.get(name, 0)) for name in names}
    return {name: pair for name, pair in found.items() if pair[0] != pair[1]}


def preview_lines(manifest: Manifest, found: Preview) -> Iterator[str]:
    """The lines to show before a restore."""
    if found.missing_users:
        yield f"{found.missing_users} users of the bundle are missing here or have another id: see --users."
    for each in found.left_out:
        yield f"The bundle has, and a restore leaves out: {each}."
    if found.living is None:
        rows = sum(file.rows for file in manifest.tables)
        yield f"A new tenant {found.slug} would be made, with {rows} rows in {len(manifest.tables)} tables."
        return
    yield from _living_lines(manifest, found.living)


def _living_lines(manifest: Manifest, living: Living) -> Iterator[str]:
    yield f"Data of tenant {living.tenant.slug} today: {living.data}."
    for each in currency_changes(manifest, living):
        yield (
            f"{each.currency}: balances {each.balance} become {each.balance_restored}, "
            f"{each.wallets} wallets become {each.wallets_restored}."
        )
    entries = ledger_changes(manifest, living)
    for change in entries:
        yield (
            f"{change.currency}: {change.entries} entries from {change.debit} to {change.credit} since then, "
            f"{change.amount} in all, would be gone."
        )
    if not entries:
        yield "No ledger entry would be gone."
    for name, (now, then) in row_changes(manifest, living).items():
        yield f"{name}: {now} rows become {then}."
    yield f"Members stay as they are today: {living.joined} joined since then, {living.left} left."
    changed = ", ".join(f"{name} {printable(str(value))}" for name, value in living.settings.items())
    yield f"Settings stay as they are today{': ' + changed if changed else ''}."
    if living.drift:
        objects = printable(told(living.drift, _OBJECTS_AT_MOST))
        yield f"The tenant has today, and will lose, because the migrations do not make it so: {objects}."


def preview_report(manifest: Manifest, found: Preview) -> dict[str, Any]:
    """The preview for JSON."""
    report: dict[str, Any] = {
        "slug": found.slug,
        "takenAt": manifest.taken_at,
        "data": manifest.data,
        "missingUsers": found.missing_users,
        "leftOut": found.left_out,
        "living": None,
    }
    living = found.living
    if living is not None:
        changed = row_changes(manifest, living)
        report["living"] = {
            "slug": living.tenant.slug,
            "schemaName": living.tenant.schema_name,
            "data": living.data,
            "currencies": currency_changes(manifest, living),
            "ledger": ledger_changes(manifest, living),
            "rows": {name: {"now": now, "restored": then} for name, (now, then) in changed.items()},
            "membersJoined": living.joined,
            "membersLeft": living.left,
            "settings": dict(living.settings),
            "drift": living.drift,
        }
    return report
