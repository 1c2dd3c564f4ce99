"""An OpenID provider: a real HTTP server with real keys, which can be made to misbehave."""

import json
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import time
from typing import Any
from uuid import uuid4

from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey

AUDIENCE = "wallet-app"
DISCOVERY = "/realms/a/.well-known/openid-configuration"
JWKS = "/realms/a/keys"
Answer = tuple[int, dict[str, str], bytes]


class Provider:
    """`answers` replaces the response at a path; `fetches` counts the requests."""

    def __init__(self) -> None:
        self.fetches: Counter[str] = Counter()
        self.answers: dict[str, Callable[[], Answer]] = {}
        self.keys: dict[str, Key] = {}
        self.port = 0
        self.start()
        self.issuer = f"http://127.0.0.1:{self.port}/realms/a"
        self.kid = self.add_key()

    def start(self) -> None:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetches[self.path] += 1
                status, headers, body = provider.answers.get(self.path, lambda: provider.answer(self.path))()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> Answer:
        said = {DISCOVERY: self.discovery, JWKS: self.jwks}.get(path)
        return (200, {}, json.dumps(said()).encode()) if said else (404, {}, b"{}")

    def discovery(self) -> dict[str, Any]:
        return {"issuer": self.issuer, "jwks_uri": f"http://127.0.0.1:{self.port}{JWKS}"}

    def jwks(self) -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False, use="sig") for key in self.keys.values()]}

    def add_key(self, kind: str = "EC") -> str:
        """Publish a new key; returns its id."""
        kid = uuid4().hex
        parameters = {"kid": kid}
        made: Key = RSAKey.generate_key(2048, parameters) if kind == "RSA" else ECKey.generate_key("P-256", parameters)
        self.keys[kid] = made
        return kid

    def claims(self, email: str, /, **changed: Any) -> dict[str, Any]:
        """Valid claims except for the changed ones; None omits a claim."""
        now = int(time())
        right = {"iss": self.issuer, "aud": AUDIENCE, "sub": "1", "iat": now, "exp": now + 300}
        right |= {"email": email, "email_verified": True}
        return {name: value for name, value in (right | changed).items() if value is not None}

    def token(self, email: str, /, *, kid: str | None = None, key: Key | None = None, **changed: Any) -> str:
        """A token for this address, signed with the newest key by default."""
        kid = kid or self.kid
        key = key or self.keys[kid]
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        header = {"alg": algorithm, "kid": kid}
        return jwt.encode(header, self.claims(email, **changed), key, algorithms=[algorithm])
