"""Codes and secrets: RFC 6238's own examples, and secrets that only their user's row opens."""

from base64 import b32encode
from uuid import uuid4

import pytest
from flask import Flask

from app.auth.second_factor.codes import decrypt, encrypt, new_recovery_codes, recovery_hash, step_of
from app.current import current_app

SECRET = b32encode(b"12345678901234567890").decode()  # RFC 6238, appendix B
EXAMPLES = {1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037"}


@pytest.mark.parametrize(("moment", "code"), EXAMPLES.items())
def test_the_codes_are_those_of_the_standard_within_a_step(moment: int, code: str) -> None:
    assert step_of(SECRET, code, moment) == moment // 30
    assert step_of(SECRET, code, moment + 30) == step_of(SECRET, code, moment - 30) == moment // 30
    assert step_of(SECRET, code, moment + 60) is step_of(SECRET, code, moment - 60) is None


def test_a_secret_opens_for_its_user_and_its_key_only(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    user_id = uuid4()
    with app.app_context():
        encrypted = encrypt(SECRET, user_id)
        assert encrypt(SECRET, user_id) != encrypted
        assert decrypt(encrypted, user_id) == SECRET
        assert decrypt(encrypted, uuid4()) is None
        assert decrypt(encrypted[:-1] + bytes([encrypted[-1] ^ 1]), user_id) is None
        assert decrypt(b"", user_id) is None
        monkeypatch.setitem(current_app.config, "SECRET_KEY", "another key for tests, of 32 characters")
        assert decrypt(encrypted, user_id) is None


def test_recovery_codes_have_80_bits_and_one_hash_however_they_are_typed() -> None:
    codes = new_recovery_codes()
    assert len(set(codes)) == 10
    assert {len(code) for code in codes} == {19}
    assert recovery_hash(codes[0].upper().replace("-", " ")) == recovery_hash(codes[0]) != recovery_hash(codes[1])
