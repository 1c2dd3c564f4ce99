"""`requirements.lock` pins and hashes each package that setup.cfg requires, and `--check` finds an older lock."""

import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from packaging.requirements import Requirement

from scripts import lock_dependencies
from scripts.lock_dependencies import LOCK, SETUP_CFG

PINS = dict(re.findall(r"^([a-z\d-]+)==(\S+)", LOCK.read_text("utf-8"), re.MULTILINE))


@pytest.fixture
def setup_cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of setup.cfg and of the lock; the script uses the copy."""
    for name, path in {"SETUP_CFG": SETUP_CFG, "LOCK": LOCK}.items():
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        monkeypatch.setattr(lock_dependencies, name, copy)
    return tmp_path / SETUP_CFG.name


def run(*options: str) -> Result:
    return CliRunner().invoke(lock_dependencies.main, options)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def requirements() -> list[Requirement]:
    parser = ConfigParser(interpolation=None)
    parser.read_string(SETUP_CFG.read_text("utf-8"))
    texts = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    return [Requirement(line) for text in texts for line in text.split("\n") if line]


def test_the_lock_is_current() -> None:
    assert run("--check").exit_code == 0


def test_the_lock_satisfies_setup_cfg() -> None:
    assert not [required for required in requirements() if PINS[required.name] not in required.specifier]


def test_the_lock_holds_what_builds_the_editable_install() -> None:
    pyproject = tomllib.loads(SETUP_CFG.with_name("pyproject.toml").read_text("utf-8"))
    build_system = [Requirement(line) for line in pyproject["build-system"]["requires"]]
    assert not [required for required in build_system if PINS[required.name] not in required.specifier]


def test_every_pin_has_a_hash_and_the_lock_names_no_address() -> None:
    """Any other line would be a package without a hash, a registry, or a path of the author's machine."""
    line = r"[a-z\d-]+==\S+( ; [^\\]+)? \\| {4}--hash=sha256:[\da-f]{64}( \\)?| {4}#( {3}| via)[a-z\d .()-]*"
    lines = LOCK.read_text("utf-8").splitlines()[3:]
    assert not [text for text in lines if not re.fullmatch(line, text)]
    hashed = re.findall(r"^([a-z\d-]+)==.*\\\n    --hash=", "\n".join(lines), re.MULTILINE)
    assert hashed == list(PINS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("flask ~= 3.1\n", "flask ~= 3.0\n"),
        ("    flask ~= 3.1\n", ""),
        ("psycopg[binary]", "psycopg[binary,pool]"),
        ("    pytest ~= ", "    pytest-timeout\n    pytest ~= "),
        ("python_requires = >=3.11", "python_requires = >=3.12"),
    ],
)
def test_a_changed_requirement_makes_the_lock_stale(setup_cfg: Path, old: str, new: str) -> None:
    assert run("--check").exit_code == 0
    replace(setup_cfg, old, new)
    checked = run("--check")
    assert checked.exit_code == 1
    assert "Run `make lock`" in checked.stderr


def test_other_lines_of_setup_cfg_leave_the_lock_current(setup_cfg: Path) -> None:
    replace(setup_cfg, "license = MIT", "license = 0BSD")
    assert run("--check").exit_code == 0


def test_the_command_needs_no_package_of_the_application() -> None:
    """A package that setup.cfg requires already, but the lock does not bring yet, can't be imported."""
    blocked = {required.name.replace("-", "_") for required in requirements()} - {"rich_click", "uv"}
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(blocked | {'app', 'tenant_schemas'})}));"
        " from scripts.lock_dependencies import main; main(['--check'])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=SETUP_CFG.parent, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_lock_is_stale(setup_cfg: Path) -> None:
    setup_cfg.with_name(LOCK.name).unlink()
    assert run("--check").exit_code == 1


def test_a_requirement_that_uv_refuses_leaves_the_lock_as_it_was(setup_cfg: Path) -> None:
    replace(setup_cfg, "flask ~= 3.1\n", "flask ~= three\n")
    assert run().exit_code == 1
    assert setup_cfg.with_name(LOCK.name).read_bytes() == LOCK.read_bytes()


def test_a_pin_that_was_edited_or_lost_is_found(setup_cfg: Path) -> None:
    lock = setup_cfg.with_name(LOCK.name)
    whole = lock.read_text("utf-8")
    assert run("--check").exit_code == 0
    for edited in (whole.replace("flask==", "flask==0."), "".join(whole.splitlines(keepends=True)[:3])):
        lock.write_text(edited, "utf-8")
        assert (run("--check").exit_code, "was edited" in run("--check").stderr) == (1, True)
