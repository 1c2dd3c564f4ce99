"""What can go wrong when a statement is made."""

from app.errors import Invalid


class StatementTooLong(Invalid):
    """`movements` are in the period, `limit` fit into the format that was asked for."""

    code = "statement_too_long"


class StatementBroken(Exception):
    """The ledger's rows do not add up. Nobody's request is to blame: it is a 500, or ends a stream before its end, and
    `flask wallets audit` names the row.
    """
