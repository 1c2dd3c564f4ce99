"""Refusals of credit policies, by the SQLSTATEs of their SQL functions."""

from app.errors import PreconditionFailed
from app.sql_refusals import sql_refusal


@sql_refusal
class PolicyVersionMismatch(PreconditionFailed):
    sqlstate = "WA040"
    text = "The policy has changed since; read the policies again."
