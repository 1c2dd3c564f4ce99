"""Compares a tenant's chains with its newest file of signed heads: a movement that was deleted or rewritten together
with all that the database knows of it shows only here.
"""

import hashlib
from base64 import urlsafe_b64decode
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

import orjson
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.prover.heads import BATCH, PREFIX, Rest
from app.signing_keys import KeyRing
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

_CHANGED: Final = """
    SELECT h.wallet_id, h.seq, t.hash IS NULL
    FROM unnest(%s::uuid[], %s::bigint[], %s::bytea[]) AS h (wallet_id, seq, hash)
    LEFT JOIN wallet_transactions t ON t.wallet_id = h.wallet_id AND t.seq = h.seq
    WHERE t.hash IS DISTINCT FROM h.hash ORDER BY h.wallet_id LIMIT 1"""
_AUDIT_CHANGED: Final = "SELECT 1 WHERE (SELECT a.hash FROM audit_log a WHERE a.seq = %s) IS DISTINCT FROM %s"


def check_heads(engine: BindingEngine, tenant: Tenant, path: Path, keys: KeyRing, rest: Rest) -> str | None:
    """The first thing that the tenant's chains or the file itself have wrong; None if all is as the file says, or if
    `rest` ended the work. Reads in bounded db transactions. Raises OSError, psycopg.Error.
    """
    fault = _fault_of(path, tenant, keys)
    if fault:
        return f"{path.name} {fault}"
    with path.open("rb") as file:
        lines = (orjson.loads(line) for line in file)
        while batch := list(islice(lines, BATCH)):
            changed = _changed(engine, batch)
            if changed:
                return f"{changed} since {path.name} was signed"
            if not rest():
                return None
    return None


def _fault_of(path: Path, tenant: Tenant, keys: KeyRing) -> str | None:
    """What is wrong with the file. A key that was removed from SIGNING_KEYS proves nothing and refutes nothing."""
    digest, last, first = hashlib.sha256(), b"", b""
    with path.open("rb") as file:
        for line in file:
            digest.update(last)
            first, last = first or line, line
    try:
        about, signed = orjson.loads(first), orjson.loads(last)
        if about["tenantId"] != str(tenant.id):
            return "is another tenant's"
        public = {key.kid: key.pair.public_key for key in keys.keys}.get(signed["kid"])
        if public is None:
            log.warning("heads_of_an_unknown_key", tenant=tenant.slug, file=path.name, kid=signed["kid"])
        else:
            signature = urlsafe_b64decode(signed["signature"] + "==")
            cast(Ed25519PublicKey, public).verify(signature, PREFIX + digest.digest())
    except InvalidSignature:
        return "has lines that its signature does not cover"
    except (ValueError, TypeError, LookupError):
        return "is damaged"
    return None


def _changed(engine: BindingEngine, batch: list[dict[str, Any]]) -> str | None:
    """The signature, which is the last line, covers the lines before it: nothing else is read there."""
    batch = [line for line in batch if "signature" not in line]
    wallets = [line for line in batch if "walletId" in line]
    columns = (
        [line["walletId"] for line in wallets],
        [line["seq"] for line in wallets],
        [bytes.fromhex(line["hash"]) for line in wallets],
    )
    for wallet_id, seq, is_gone in engine.one_statement(_CHANGED, columns):
        return f"wallet {wallet_id} seq {seq} was {'removed' if is_gone else 'rewritten'}"
    for head in (line["auditLog"] for line in batch if "auditLog" in line):
        if engine.one_statement(_AUDIT_CHANGED, (head["seq"], bytes.fromhex(head["hash"]))):
            return f"audit log entry {head['seq']} was removed or rewritten"
    return None
