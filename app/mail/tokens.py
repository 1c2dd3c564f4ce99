"""The single-use tokens of account mails. A token is derived from the mail's random id with a key of the service, and
the database has only its hash. So neither a dump of the database nor an id opens an account.
"""

import hmac
from hashlib import sha256
from uuid import UUID

from app.derived_keys import derived_key
from tenant_schemas import base64url


def token_of(mail_id: UUID) -> str:
    """The token of the mail with this id: 32 bytes in base64url."""
    made = hmac.digest(derived_key("account tokens"), mail_id.bytes, "sha256")
    return base64url.encode(made)


def hash_of(token: str) -> bytes:
    return sha256(token.encode()).digest()
