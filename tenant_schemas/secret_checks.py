"""Check values of the installation's secrets, in `shared.secret_checks`: a command or a process with a wrong secret is
refused before it sets a password that no other process knows.

The names are those of the settings. A secret without a check value is not checked: `record_secrets` stores the first
one, and `replace_secret` that of a rotation.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

import psycopg

from tenant_schemas.errors import SecretRefused

TENANT_SECRET: Final = "TENANT_SECRET"  # noqa: S105  The name of a setting.

_IS_KNOWN: Final = "SELECT to_regclass('shared.secret_checks') IS NOT NULL"
_VALUES: Final = "SELECT name, check_value FROM shared.secret_checks WHERE name = ANY(%s)"
# A rotation waits until the db transaction ends, and a db transaction that began later sees its value.
_LOCKED_VALUES: Final = _VALUES + " FOR SHARE"
_RECORD: Final = "INSERT INTO shared.secret_checks (name, check_value) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING"
_REPLACE: Final = """
    INSERT INTO shared.secret_checks (name, check_value) VALUES (%s, %s)
    ON CONFLICT (name) DO UPDATE SET check_value = excluded.check_value, set_at = now()"""


def wrong_secrets(connection: psycopg.Connection[Any], secrets: Mapping[str, str], *, lock: bool = False) -> list[str]:
    """The names of the secrets that differ from their check values; none if `shared` is older than the table. With
    `lock` the values are locked against a rotation until the db transaction ends: for a login that may change them.
    """
    ((is_known,),) = connection.execute(_IS_KNOWN)
    if not is_known:
        return []
    values = dict(connection.execute(_LOCKED_VALUES if lock else _VALUES, (list(secrets),)).fetchall())
    return [
        name
        for name, secret in secrets.items()
        if name in values and not hmac.compare_digest(values[name], check_value(name, secret))
    ]


def check_tenant_secret(connection: psycopg.Connection[Any], secret: str, *, lock: bool = False) -> None:
    """Raises SecretRefused if the secret is not the one of this installation. `lock` is that of `wrong_secrets`."""
    if wrong_secrets(connection, {TENANT_SECRET: secret}, lock=lock):
        raise SecretRefused(
            f"{TENANT_SECRET} is not the secret of this installation: its check value in shared.secret_checks differs. "
            "Nothing was changed. Set the right one; to change it, run `python -m scripts.rotate_tenant_secret`."
        )


def missing_checks(connection: psycopg.Connection[Any], secrets: Mapping[str, str]) -> list[str]:
    """The names of the secrets that have no check value yet; none if `shared` is older than the table."""
    ((is_known,),) = connection.execute(_IS_KNOWN)
    if not is_known:
        return []
    values = dict(connection.execute(_VALUES, (list(secrets),)).fetchall())
    return [name for name in secrets if name not in values]


def record_secrets(connection: psycopg.Connection[Any], secrets: Mapping[str, str]) -> None:
    """Store the check values of secrets that have none, as the owner or the migrator. Commits nothing."""
    for name, secret in secrets.items():
        connection.execute(_RECORD, (name, check_value(name, secret)))


def replace_secret(connection: psycopg.Connection[Any], name: str, secret: str) -> None:
    """Store a new check value, as the owner or the migrator. Waits for db transactions that use the old secret, and
    locks the value until its own ends. Commits nothing.
    """
    connection.execute(_REPLACE, (name, check_value(name, secret)))


def check_value(name: str, secret: str) -> bytes:
    """HMAC-SHA256 of a text that derives no password and no key."""
    return hmac.new(secret.encode(), f"secret-check:{name}".encode(), hashlib.sha256).digest()
