"""Signed heads: once a day, each tenant's proven chain ends in a file, `<folder>/<tenant id>/heads-<date>.jsonl`.

The folder should lie where the database's owner can't write. A file is JSON in lines, and no object has to be known to
read it: the first line says what it is and the SHA-256 of the file before it, then comes a line for each wallet and one
for the audit log, and the last line is an Ed25519 signature, by the key that signs access tokens, over PREFIX and the
SHA-256 of all lines before. A file is written whole or not at all, and never changed.
"""

import hashlib
import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import IO, Any, Final, cast
from uuid import UUID

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.signing_keys import ALGORITHM, SigningKey
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.tenant import Tenant

FORMAT: Final = "wallet-chain-heads"
VERSION: Final = 1
PREFIX: Final = b"wallet-chain-heads v1\n"  # No JWT begins like this, so no signature here is one of a token.
BATCH: Final = 2000
_HEADS: Final = """
    SELECT wallet_id, seq, hash FROM wallet_proofs WHERE wallet_id > %s ORDER BY wallet_id LIMIT %s"""
_AUDIT_HEAD: Final = "SELECT audit_seq, audit_hash FROM proof_progress WHERE audit_seq > 0"
_FIRST: Final = UUID(int=0)

Rest = Callable[[], bool]
"""Called after each batch. False ends the work early."""


def folder_of(heads_dir: Path, tenant: Tenant) -> Path:
    return heads_dir / str(tenant.id)


def path_of_today(heads_dir: Path, tenant: Tenant) -> Path:
    return folder_of(heads_dir, tenant) / f"heads-{datetime.now(UTC):%Y-%m-%d}.jsonl"


def newest_file(heads_dir: Path, tenant: Tenant) -> Path | None:
    """The tenant's file of the latest day. Their names sort by date."""
    return max(folder_of(heads_dir, tenant).glob("heads-*.jsonl"), default=None)


def write_heads(engine: BindingEngine, tenant: Tenant, heads_dir: Path, signer: SigningKey, rest: Rest) -> Path | None:
    """Write and sign the tenant's file of today, and return its path. None if it exists, also because another prover
    was faster, or if `rest` ended the work. Reads in bounded db transactions. Raises OSError, psycopg.Error.
    """
    path = path_of_today(heads_dir, tenant)
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    scratch = path.with_suffix(f".{token_hex(4)}.tmp")
    try:
        with scratch.open("wb") as file:
            if not _write(file, _batches(engine, tenant, newest_file(heads_dir, tenant)), signer, rest):
                return None
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(scratch, path)
            _sync_folder(path.parent)
            return path
        return None
    finally:
        scratch.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Of provers that were killed on an earlier day while they wrote."""
    for scratch in path.parent.glob("heads-*.tmp"):
        if not scratch.name.startswith(path.stem):
            scratch.unlink(missing_ok=True)


def _write(file: IO[bytes], batches: Iterator[list[dict[str, Any]]], signer: SigningKey, rest: Rest) -> bool:
    """False if `rest` ended the work."""
    digest = hashlib.sha256()
    for batch in batches:
        text = b"".join(orjson.dumps(line) + b"\n" for line in batch)
        digest.update(text)
        file.write(text)
        if not rest():
            return False
    private = cast(Ed25519PrivateKey, signer.pair.private_key)
    signature = urlsafe_b64encode(private.sign(PREFIX + digest.digest())).rstrip(b"=").decode()
    last = {"kid": signer.kid, "alg": ALGORITHM, "sha256": digest.hexdigest(), "signature": signature}
    file.write(orjson.dumps(last) + b"\n")
    return True


def _batches(engine: BindingEngine, tenant: Tenant, before: Path | None) -> Iterator[list[dict[str, Any]]]:
    previous = {"file": before.name, "sha256": _sha256(before)} if before else None
    made_at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    about = {"format": FORMAT, "version": VERSION, "tenantId": tenant.id, "madeAt": made_at, "previous": previous}
    yield [about]
    last = _FIRST
    while rows := engine.one_statement(_HEADS, (last, BATCH)):
        yield [{"walletId": wallet_id, "seq": seq, "hash": head.hex()} for wallet_id, seq, head in rows]
        last = rows[-1][0]
    yield [{"auditLog": {"seq": seq, "hash": head.hex()}} for seq, head in engine.one_statement(_AUDIT_HEAD, ())]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """A new name survives a crash of the machine once its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
