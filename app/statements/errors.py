"""Refusals of statements."""

from app.errors import Invalid


class StatementTooLong(Invalid):
    """The period has too many movements: `movements` is their number, `limit` the maximum of the format."""

    code = "statement_too_long"


class StatementBroken(Exception):
    """The ledger's rows do not add up. No request causes this: it is a 500, or breaks off a stream, and `flask wallets
    audit` names the row.
    """
