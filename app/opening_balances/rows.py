"""One line of the old system's files: its form, and its effect on a member's balance.

Files are CSV by RFC 4180 with a header line, in UTF-8 with or without a BOM, columns in any order:

    orderId,user,amount,currency,status,orderedAt        user,amount,currency,reference,depositedAt
    1001,ana@example.com,12.50,EUR,paid,2024-05-01       ana@example.com,20.00,EUR,wire 77,2024-04-30

An unknown column is refused, because a misspelt one would otherwise be ignored silently.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from typing import IO, BinaryIO, Final, NamedTuple

import marshmallow

from app.api.money_fields import AmountField
from app.errors import Invalid
from app.money import fraction_digits, to_minor

# An order without a status counts. A status in neither list is ambiguous, so its row is wrong.
COUNTS: Final = frozenset({"", "paid", "completed", "complete", "delivered", "shipped", "fulfilled"})
COUNTS_NOT: Final = frozenset({"cancelled", "canceled", "refunded", "failed", "rejected", "voided"})
_SHOWN_CHARACTERS: Final = 60
_as_json: Final = json.JSONEncoder(ensure_ascii=False).encode
_AMOUNT: Final = AmountField(allows="zero_or_more")


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two kinds of file. `sign` is the effect of its amounts on a balance."""

    name: str
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    sign: int


ORDERS: Final = Kind("order", ("orderId", "user", "amount"), ("currency", "status", "orderedAt"), -1)
DEPOSITS: Final = Kind("deposit", ("user", "amount"), ("currency", "reference", "depositedAt"), 1)


class Member(NamedTuple):
    """A member of the tenant. A directory finds members by address and by id."""

    user_id: str
    email: str


Directory = Mapping[str, Member]


@dataclass(frozen=True, slots=True)
class Row:
    """A valid row. `canonical` is equal for all spellings of the same row."""

    user_id: str
    currency: str
    amount_minor: int
    canonical: str


class WrongRow(Exception):
    """A fault in one row. `stranger` is the named user if the user is no member of this tenant."""

    def __init__(self, text: str, *, stranger: str | None = None) -> None:
        super().__init__(text)
        self.stranger = stranger


class WrongFile(Exception):
    """A file with no trustworthy row, because the end of a row or the meaning of a column is unclear."""


def order_id_of(told: Mapping[str, str]) -> str:
    """The order's id, in a form that can be compared with others; invalid bytes are removed."""
    return told["orderId"].strip().encode(errors="ignore").decode()


def find_member(directory: Directory, user: str) -> Member | None:
    return directory.get(user.strip().lower())


class Line(NamedTuple):
    """A line's cells by column name; as a list if their number differs from the header's."""

    number: int
    cells: dict[str, str] | list[str]


def lines_of(file: IO[str], name: str, kind: Kind) -> Iterator[Line]:
    """Each non-empty line below the header. Raises WrongFile."""
    lines = csv.reader(file, strict=True)
    header: list[str] = []
    before = 0
    try:
        for cells in lines:
            # An unclosed quote swallows lines of any user: then no balance is certain.
            if lines.line_num > before + 1:
                raise WrongFile(
                    f"{name} line {before + 1}: a cell continues in the next line; check for an unclosed quote"
                )
            before = lines.line_num
            if header and cells:
                by_name = len(cells) == len(header)
                yield Line(before, dict(zip(header, cells, strict=True)) if by_name else cells)
            elif cells:
                header = _header(cells, kind, f"{name} line {before}")
    except csv.Error as error:
        raise WrongFile(f"{name} line {before + 1}: invalid CSV: {error}") from None
    if not header:
        raise WrongFile(f"{name}: the header line is missing; required columns: {', '.join(kind.needed)}")


def _header(names: list[str], kind: Kind, where: str) -> list[str]:
    known = (*kind.needed, *kind.optional)
    faults = [
        *(f"the column {name} is missing" for name in kind.needed if name not in names),
        *(f"the column {shown(name)} is unknown" for name in names if name not in known),
        *(f"the column {name} appears twice" for name in known if names.count(name) > 1),
    ]
    if faults:
        raise WrongFile(f"{where}: {'; '.join(faults)}; known columns: {', '.join(known)}")
    return names


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads rows for one tenant, with its members and its currencies, the main one first."""

    directory: Directory
    currencies: tuple[str, ...]

    def row(self, kind: Kind, told: dict[str, str] | list[str]) -> Row:
        """The row in this line. Raises WrongRow."""
        if not isinstance(told, dict):
            raise WrongRow(f"it has {len(told)} cells, and the header has another number")
        _refuse_bad_text("".join(told.values()))
        member = self._member(told["user"])
        currency = self._currency(told.get("currency", ""))
        amount_minor = _amount_minor(told["amount"], currency)
        counts = _counts(told.get("status", ""))
        name = order_id_of(told) if kind is ORDERS else told.get("reference", "")
        if kind is ORDERS and not name:
            raise WrongRow("orderId is empty")
        at = told.get("orderedAt", told.get("depositedAt", ""))
        canonical = _as_json([kind.name, name, currency, amount_minor, counts, at])
        return Row(member.user_id, currency, kind.sign * amount_minor * counts, canonical)

    def _member(self, user: str) -> Member:
        member = find_member(self.directory, user)
        if member is None:
            stranger = user.strip().lower()
            raise WrongRow(f"there is no user {shown(stranger)}", stranger=stranger)
        return member

    def _currency(self, currency: str) -> str:
        if not currency:
            return self.currencies[0]
        if currency in self.currencies:
            return currency
        try:
            fraction_digits(currency)
        except ValueError:
            raise WrongRow(f"{shown(currency)} is not an ISO 4217 currency with a minor unit") from None
        raise WrongRow(f"this tenant does not allow wallets in {currency}, only in {', '.join(self.currencies)}")


def _amount_minor(amount: str, currency: str) -> int:
    try:
        return to_minor(_AMOUNT.deserialize(amount), currency)
    except marshmallow.ValidationError as error:
        raise WrongRow(f"amount {shown(amount)}: {error.messages[0]}") from None
    except Invalid as error:
        raise WrongRow(f"amount {shown(amount)}: {error.members['errors'][0]['message']}") from None


def _counts(status: str) -> bool:
    word = status.strip().lower()
    if word not in COUNTS and word not in COUNTS_NOT:
        known = ", ".join(sorted((COUNTS | COUNTS_NOT) - {""}))
        raise WrongRow(f"the status {shown(status)} is unknown; known are {known}")
    return word in COUNTS


def _refuse_bad_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise WrongRow("it is not UTF-8") from None
    if "\x00" in text:
        raise WrongRow("it has a NUL character")


def shown(text: str) -> str:
    """A text for a terminal: short, without control characters."""
    return repr(text[:_SHOWN_CHARACTERS])


def as_text(file: BinaryIO) -> IO[str]:
    """The text of these bytes. Invalid UTF-8 becomes lone surrogates, so that the line can still be named."""
    return TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
