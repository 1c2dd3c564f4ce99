"""Keys are kept for the owner alone, published without their private half, and rotated under the running service."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from app import signing_keys
from app.auth.tokens import TokenMint
from app.signing_keys import KeyFile, dump_keys, ensure_key_file, parse_keys
from scripts import rotate_signing_key
from tests.conftest import SIGNING_KEY
from tests.factories.api import Api


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def rotate(*arguments: Any) -> Result:
    return CliRunner().invoke(rotate_signing_key.main, [str(each) for each in arguments])


def kids_of(file: Path) -> list[str]:
    return [key.kid for key in parse_keys(file.read_text()).keys]


def test_the_public_halves_are_published_and_nothing_else(api: Api) -> None:
    response = api.get("/.well-known/jwks.json")
    assert response.status_code == 200
    public = ("kty", "crv", "x", "kid", "use", "alg")
    assert response.json == {"keys": [{name: SIGNING_KEY[name] for name in public}]}
    assert response.headers["Cache-Control"] == "public, max-age=300"
    assert str(SIGNING_KEY["d"]) not in response.text


WRONG: dict[str, Any] = {
    "nothing": "",
    "no JSON": "{",
    "a key and no set": json.dumps(SIGNING_KEY),
    "no key": '{"keys": []}',
    "one key twice": json.dumps({"keys": [SIGNING_KEY, SIGNING_KEY]}),
    "a public key": json.dumps({"keys": [{name: value for name, value in SIGNING_KEY.items() if name != "d"}]}),
    "no kid": json.dumps({"keys": [{name: value for name, value in SIGNING_KEY.items() if name != "kid"}]}),
    "another curve": json.dumps({"keys": [SIGNING_KEY | {"crv": "X25519"}]}),
    "another kind": json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "x"}]}),
    "halves of two keys": json.dumps({"keys": [SIGNING_KEY | {"x": "5Acua5ETkt7yYJc7Y1SUW1sle5BiyQJC26w3mRjxR50"}]}),
    "a time that is text": json.dumps({"keys": [SIGNING_KEY | {"nbf": "0"}]}),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_set_of_private_keys_is_refused_and_not_shown(what: str, file: Path) -> None:
    with pytest.raises(ValueError, match="it ") as caught:
        parse_keys(WRONG[what])
    assert str(SIGNING_KEY["d"]) not in str(caught.value)
    file.write_text(WRONG[what])
    result = rotate("--file", file)
    assert (result.exit_code, file.read_text()) == (2, WRONG[what])


def test_keys_are_read_as_they_were_written(file: Path) -> None:
    rotate("--file", file)
    rotate("--file", file)
    assert json.loads(dump_keys(parse_keys(file.read_text()))) == json.loads(file.read_text())


def test_a_rotation_puts_a_key_in_front_and_drops_the_oldest_but_never_the_one_that_signs(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rotate("--file", file).exit_code == 0
    (first,) = kids_of(file)
    rotate("--file", file)
    second, *others = kids_of(file)
    assert others == [first]
    rotate("--file", file)
    assert kids_of(file)[1:] == [second, first], "the second does not sign yet"
    now = time()
    monkeypatch.setattr(signing_keys, "time", lambda: now + 601)
    assert first in rotate("--file", file).output
    assert first not in kids_of(file)
    rotate("--file", file, "--keep", 3)
    assert len(kids_of(file)) == 3
    assert rotate("--file", file, "--keep", 1).exit_code == 2


def test_a_new_key_signs_only_after_it_could_be_learned(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a copy of the published keys may be kept."""
    rotate("--file", file)
    ring = parse_keys(file.read_text())
    assert ring.signer() is ring.keys[0], "a first key signs at once"
    rotate("--file", file)
    ring = parse_keys(file.read_text())
    assert ring.signer() is ring.keys[1]
    now = time()
    monkeypatch.setattr(signing_keys, "time", lambda: now + 301)
    assert ring.signer() is ring.keys[1]
    monkeypatch.setattr(signing_keys, "time", lambda: now + 601)
    assert ring.signer() is ring.keys[0]


def test_a_key_file_is_for_its_owner_alone_and_keeps_the_mode_it_was_given(file: Path) -> None:
    rotate("--file", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    rotate("--file", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(file.parent.iterdir()) == [file]


def test_of_processes_that_start_at_once_one_makes_the_key(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads stand for them."""
    monkeypatch.setattr("os.getpid", count(1).__next__)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ensure_key_file(file), range(4)))
    made = kids_of(file)
    monkeypatch.setattr(Path, "exists", lambda _: False)  # It came just after this process had looked.
    ensure_key_file(file)
    assert (kids_of(file), list(file.parent.iterdir())) == (made, [file])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_running_process_learns_of_a_rotation_and_survives_a_broken_file(file: Path) -> None:
    rotate("--file", file)
    source = KeyFile(file)
    mint = TokenMint(source, 60)
    token = mint.issue(uuid4(), None, uuid4())
    assert source() is source()
    rotate("--file", file)
    assert [key.kid for key in source().keys] == kids_of(file)
    assert mint.check(token)
    right = file.read_text()
    for broken in ("{", '{"keys": []}', None):
        file.write_text(broken) if broken is not None else file.unlink()
        assert mint.check(token)
        assert mint.check(mint.issue(uuid4(), None, uuid4()))
    file.write_text(right)
    assert [key.kid for key in source().keys] == kids_of(file)


def test_a_rotation_says_where_if_nobody_told_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path) -> None:
    for name in ("DATABASE_URL", "SIGNING_KEYS", "SIGNING_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert rotate().exit_code == 0
    assert len(kids_of(tmp_path / "signing_keys.json")) == 1
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/wallet")
    assert rotate().exit_code == 2
    monkeypatch.setenv("SIGNING_KEYS_FILE", str(file))
    assert rotate().exit_code == 0
    assert len(kids_of(file)) == 1
