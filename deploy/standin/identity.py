"""Your users, and the tokens that prove to the wallet who they are: a key of your own, published as an OpenID provider
does. The wallet trusts it by OIDC_ISSUER and OIDC_AUDIENCE; a token's e-mail address names the wallet's user.
"""

import json
import os
from pathlib import Path
from time import time
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.jwt import JWTClaimsRegistry

ALGORITHM = "ES256"
TOKEN_SECONDS = 300


class Identity:
    """`users` are addresses and hashes of passwords."""

    def __init__(self, folder: Path, issuer: str, audience: str, users: dict[str, str]) -> None:
        self._key = _signing_key(folder / "signing_key.json")
        self._issuer, self._audience, self._users = issuer, audience, users
        self._hasher = PasswordHasher()
        self._nobody = self._hasher.hash(os.urandom(16).hex())

    def log_in(self, email: str, password: str) -> str | None:
        """A token; None if address or password is wrong. An unknown address takes as long as a known one."""
        try:
            self._hasher.verify(self._users.get(email, self._nobody), password)
        except VerificationError:
            return None
        return self.token(email)

    def token(self, email: str) -> str:
        now = int(time())
        claims = {"iss": self._issuer, "aud": self._audience, "sub": email, "iat": now, "exp": now + TOKEN_SECONDS}
        header = {"alg": ALGORITHM, "kid": self._key.thumbprint()}
        return jwt.encode(header, claims | {"email": email, "email_verified": True}, self._key, [ALGORITHM])

    def email_of(self, token: str) -> str | None:
        """Whose token this is; None if it is not valid."""
        rules = JWTClaimsRegistry(iss={"essential": True, "value": self._issuer}, exp={"essential": True})
        try:
            claims = jwt.decode(token, self._key, [ALGORITHM]).claims
            rules.validate(claims)
        except (JoseError, ValueError, TypeError):  # The last one for a header of wrong types.
            return None
        return str(claims["email"])

    def discovery(self) -> dict[str, Any]:
        """OpenID Connect Discovery, as far as the wallet reads it."""
        algorithms = {"id_token_signing_alg_values_supported": [ALGORITHM]}
        return {"issuer": self._issuer, "jwks_uri": f"{self._issuer}/keys", **algorithms}

    def keys(self) -> dict[str, Any]:
        return {"keys": [self._key.as_dict(private=False, use="sig", alg=ALGORITHM, kid=self._key.thumbprint())]}


def _signing_key(path: Path) -> ECKey:
    """The key in this file, which is made at the first start and which its owner alone may read."""
    if not path.exists():
        made = path.with_suffix(f".{os.getpid()}")
        made.touch(mode=0o600)
        made.write_text(json.dumps(ECKey.generate_key("P-256").as_dict(private=True)))
        made.rename(path)
    return ECKey.import_key(json.loads(path.read_text()))
