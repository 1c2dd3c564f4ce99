"""Prove a statement against signed heads: recompute the hash of each movement, and compare the chain with the heads
that the wallet service signed.

It imports nothing of the service and reads no database, so that an auditor can read it, and run it on another machine.
It needs Python 3.11 or newer and the package `cryptography`.

    python prove_statement.py --statement statement.json --heads heads-2026-11-30.jsonl --keys jwks.json

`statement.json` is the answer to GET …/statement?from=…&to=…&proof=true. `heads-….jsonl` is the tenant's file of a day.
`jwks.json` is a copy of the service's /.well-known/jwks.json, from when that file was signed; keep it elsewhere too.

Exit codes: 0 the statement is as the heads say, up to the movement that it names; 1 it is not, or the heads say nothing
about it; 2 bad arguments, or a file that can't be read.
"""

import argparse
import hashlib
import json
import re
import sys
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PREFIX = b"wallet-chain-heads v1\n"
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # of PostgreSQL
QUOTED = frozenset('"\\(), \t\n\r\v\f')

# Of currencies that have not two (ISO 4217).
_NO_DIGITS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DIGITS = "BHD IQD JOD KWD LYD OMR TND"
FRACTION_DIGITS = {
    **dict.fromkeys(_NO_DIGITS.split(" "), 0),
    **dict.fromkeys(_THREE_DIGITS.split(" "), 3),
    **{"CLF": 4, "UYW": 4},
}

Members = dict[str, Any]


class NotProven(Exception):
    """The message says what does not hold."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("statement", "heads", "keys"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    try:
        with open(given.statement, encoding="utf-8") as file:
            statement: Members = json.load(file)
        about, head = read_head(given.heads, given.keys, statement["walletId"])
        last = prove(statement, head)
    except NotProven as problem:
        _exit(1, f"NOT PROVEN: {problem}")
    except (OSError, ValueError, LookupError, TypeError) as error:
        _exit(2, f"A file can't be read: {error!r}")
    print(f"PROVEN: wallet {statement['walletId']} until seq {head['seq']}, as signed at {about['madeAt']}.")
    print(f"Tenant {about['tenantId']}; closing balance {statement['closingBalance']} {statement['currency']}.")
    if last > head["seq"]:
        print(f"The movements after it, until seq {last}, continue the chain and are not signed yet.")


def _exit(code: int, message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)


def read_head(heads: str, keys: str, wallet_id: str) -> tuple[Members, Members]:
    """The first line of the file, and the line of the wallet, once the signature is verified. The last line is the
    signature: it covers the lines before it and not itself, so nothing else is read there.
    """
    digest, last = hashlib.sha256(), b""
    about: Members = {}
    found: list[Members] = []
    with open(heads, "rb") as file:
        for line in file:
            if last:
                digest.update(last)
                members = json.loads(last)
                about = about or members
                found += [members] if members.get("walletId") == wallet_id else []
            last = line
    _verify(json.loads(last), digest.digest(), keys)
    if about.get("format") != "wallet-chain-heads" or about.get("version") != 1:
        raise NotProven("the file of heads has another format.")
    if len(found) != 1:
        raise NotProven(f"the heads of {about['madeAt']} have the wallet {wallet_id} {len(found)} times, not once.")
    return about, found[0]


def _verify(signed: Members, digest: bytes, keys: str) -> None:
    with open(keys, encoding="utf-8") as file:
        known = {key["kid"]: key["x"] for key in json.load(file)["keys"]}
    if signed.get("kid") not in known:
        raise NotProven(f"the heads are signed by the key {signed.get('kid')}, which is not in {keys}.")
    public = Ed25519PublicKey.from_public_bytes(_bytes(known[signed["kid"]]))
    try:
        public.verify(_bytes(signed["signature"]), PREFIX + digest)
    except InvalidSignature:
        raise NotProven("the signature does not cover the lines of the heads.") from None


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def prove(statement: Members, head: Members) -> int:
    """The seq of the last movement. Raises NotProven."""
    movements: list[Members] = statement["movements"]
    if "previousHash" not in statement:
        raise NotProven("the statement is without proof. Take it with proof=true.")
    balance, previous = _minor(statement["openingBalance"]), bytes.fromhex(statement["previousHash"])
    if not movements:
        raise NotProven("the statement has no movements, so nothing in it is hashed.")
    _refuse_other_spellings(statement)
    seq, met = movements[0]["seq"] - 1, {}
    for movement in movements:
        seq, balance = seq + 1, balance + _minor(movement["amount"])
        if movement["seq"] != seq or movement["walletId"] != statement["walletId"]:
            raise NotProven(f"a movement is missing before seq {movement['seq']}.")
        if _minor(movement["balanceAfter"]) != balance:
            raise NotProven(f"seq {seq}: the balance after it is not the sum of the amounts.")
        previous = movement_hash(previous, movement)
        if previous.hex() != movement["proof"]["hash"]:
            raise NotProven(f"seq {seq}: its hash is not that of its members.")
        met[seq] = previous
    if _minor(statement["closingBalance"]) != balance:
        raise NotProven("the closing balance is not the sum of the amounts.")
    if head["seq"] not in met:
        raise NotProven(
            f"the statement has seq {min(met)} to {seq}, and the signed head is seq {head['seq']}: movements were"
            " removed, or the statement is of another time. Take one whose period has that movement."
        )
    if met[head["seq"]].hex() != head["hash"]:
        raise NotProven(f"seq {head['seq']} has another hash than the signed head: the history was rewritten.")
    return int(seq)


def movement_hash(previous: bytes, movement: Members) -> bytes:
    """What the service's database computes for the movement (wallet_transaction_hash_v2, or for movements of before
    release 0.2 wallet_transaction_hash_v1).
    """
    proof = movement["proof"]
    if proof["debitAccount"] is None:
        return hashlib.sha256(previous + _jsonb(_first_form(movement)).encode()).digest()
    names = ("id", "walletId", "currency", "seq", "type")
    fields = [*(movement[name] for name in names), _minor(movement["amount"]), _minor(movement["balanceAfter"])]
    fields += [proof["idempotencyKey"], *(movement[name] for name in ("adminId", "orderId", "paymentId", "holdId"))]
    fields += [movement[name] for name in ("description", "reference", "reason")]
    row = "(" + ",".join(map(_field, [*fields, proof["debitAccount"], proof["creditAccount"]])) + ")"
    moment = _microseconds(movement, EPOCH).to_bytes(8, "big", signed=True)
    return hashlib.sha256(previous + bytes.fromhex(proof["requestFingerprint"]) + moment + row.encode()).digest()


def _minor(amount: str) -> int:
    return int(amount.replace(".", ""))


def _refuse_other_spellings(statement: Members) -> None:
    """A hash covers an amount as a number of minor units: "10000." would be the same as "100.00". So every amount must
    have the digits of the statement's currency (ISO 4217).
    """
    currency = statement["currency"]
    digits = FRACTION_DIGITS.get(currency, 2)
    canonical = re.compile(r"-?(0|[1-9][0-9]*)" + (rf"\.[0-9]{{{digits}}}" if digits else ""), re.ASCII)
    amounts = [statement["openingBalance"], statement["closingBalance"]]
    for movement in statement["movements"]:
        if movement["currency"] != currency:
            raise NotProven(f"seq {movement['seq']} is in {movement['currency']}, and the statement in {currency}.")
        entries = movement["proof"].get("entries") or ()
        amounts += [movement["amount"], movement["balanceAfter"], *(entry["amount"] for entry in entries)]
    for amount in amounts:
        if not canonical.fullmatch(amount):
            raise NotProven(f"the amount {amount!r} is not written as {currency} is.")


def _microseconds(movement: Members, epoch: datetime) -> int:
    return (datetime.fromisoformat(movement["createdAt"]) - epoch) // timedelta(microseconds=1)


def _field(value: object) -> str:
    """As PostgreSQL writes a field of a row."""
    if value is None:
        return ""
    text = str(value)
    if text and QUOTED.isdisjoint(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '""') + '"'


def _first_form(movement: Members) -> Members:
    proof = movement["proof"]
    seconds, micros = divmod(_microseconds(movement, datetime(1970, 1, 1, tzinfo=UTC)), 1_000_000)
    fields = {
        "id": movement["id"],
        "wallet_id": movement["walletId"],
        "currency": movement["currency"],
        "seq": movement["seq"],
        "type": movement["type"],
        "amount_minor": _minor(movement["amount"]),
        "balance_after_minor": _minor(movement["balanceAfter"]),
        "idempotency_key": proof["idempotencyKey"],
        "request_fingerprint": proof["requestFingerprint"],
        "admin_id": movement["adminId"],
        "order_id": movement["orderId"],
        "refund_of": movement["paymentId"],
        "hold_id": movement["holdId"],
        "description": movement["description"],
        "reference": movement["reference"],
        "reason": movement["reason"],
        "created_at": f"{seconds}.{micros:06d}",
        "entries": [
            [entry["number"], entry["debitAccount"], entry["creditAccount"], _minor(entry["amount"])]
            for entry in proof["entries"] or ()
        ],
    }
    return {name: value for name, value in fields.items() if value is not None}


def _jsonb(fields: Members) -> str:
    """As PostgreSQL writes a jsonb object: shorter names first, then by their bytes."""
    return "{" + ", ".join(f'"{name}": {_value(fields[name])}' for name in _ordered(fields)) + "}"


def _ordered(fields: Members) -> Iterator[str]:
    yield from sorted(fields, key=lambda name: (len(name), name))


def _value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
