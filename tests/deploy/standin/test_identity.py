"""The stand-in's users and tokens. `tests/scripts/test_demo.py` shows the wallet taking them."""

import stat
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from deploy.standin import identity
from deploy.standin.identity import Identity

ISSUER = "http://localhost:8080"
EMAIL = "member@example.com"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def standin(folder: Path, issuer: str = ISSUER) -> Identity:
    folder.mkdir(exist_ok=True)
    return Identity(folder, issuer, "wallet", {EMAIL: CHEAP.hash("right")})


def test_a_user_logs_in_with_the_right_password_only(tmp_path: Path) -> None:
    own = standin(tmp_path)
    token = own.log_in(EMAIL, "right")
    assert token
    assert own.email_of(token) == EMAIL
    assert [own.log_in(EMAIL, "wrong"), own.log_in("other@example.com", "right")] == [None, None]


def test_a_token_of_another_key_or_issuer_and_an_expired_one_are_not_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = standin(tmp_path)
    monkeypatch.setattr(identity, "TOKEN_SECONDS", -1)
    wrong = [own.token(EMAIL), standin(tmp_path / "b").token(EMAIL), standin(tmp_path, "http://b").token(EMAIL)]
    nonsense = urlsafe_b64encode(b'{"alg": "ES256", "crit": 5}').decode()
    assert [own.email_of(token) for token in (*wrong, "", "a.b.c", "é", f"{nonsense}.e30.e30")] == [None] * 7


def test_the_key_outlives_a_restart_and_only_its_public_part_is_published(tmp_path: Path) -> None:
    token = standin(tmp_path).token(EMAIL)
    assert standin(tmp_path).email_of(token) == EMAIL
    (published,) = standin(tmp_path).keys()["keys"]
    assert published.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert stat.S_IMODE((tmp_path / "signing_key.json").stat().st_mode) == 0o600
