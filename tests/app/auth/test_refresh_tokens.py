"""The tag of a refresh token proves its session without the database, and a successor is the same in every process."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from flask import Flask

from app.auth.refresh_tokens import hash_of, new_salt, new_token, proven_session_of, session_of, successor_of

SESSION = UUID("9f2c1f6e-0d52-4b43-8a51-5b9a3f0e7c11")


@pytest.fixture(autouse=True)
def in_context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def test_a_token_and_its_successor_prove_their_session() -> None:
    token = new_token(SESSION)
    successor = successor_of(token, new_salt())
    assert {session_of(each) for each in (token, successor)} == {SESSION}
    assert {proven_session_of(each) for each in (token, successor)} == {SESSION}


def test_who_knows_the_id_of_a_session_or_another_token_proves_nothing() -> None:
    token, other = new_token(SESSION), new_token(uuid4())
    session, secret, tag = token.split(".")
    _, others_secret, others_tag = other.split(".")
    for forged in (
        *(f"{session}.{others_secret}.{others_tag}", f"{session}.{others_secret}.{tag}", f"{session}.{secret}"),
        *(f"{session}.{secret}.{tag[:-1]}", f"{session}.{secret}.é", f"{session}..{tag}", session, "", "x.y.z"),
    ):
        assert proven_session_of(forged) is None, forged


def test_a_successor_needs_the_token_the_salt_and_the_secret_key(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    token, salt = new_token(SESSION), new_salt()
    successor = successor_of(token, salt)
    assert successor_of(token, salt) == successor
    others = {successor_of(token, new_salt()), successor_of(new_token(SESSION), salt)}
    monkeypatch.setitem(app.config, "SECRET_KEY", "another signing key, of 32 characters or more")
    others.add(successor_of(token, salt))
    assert len({hash_of(each) for each in others} | {hash_of(successor)}) == 4


def test_the_hash_is_of_the_token_without_its_tag() -> None:
    """So a token of an earlier release, or from before a change of SECRET_KEY, is found."""
    token = new_token(SESSION)
    assert hash_of(token) == hash_of(token.rpartition(".")[0]) != hash_of(new_token(SESSION))
