"""Write `requirements.lock`: the version and the SHA-256 hashes of every package that setup.cfg requires, directly or
through another package. `make lock` runs this.

A pin that still satisfies setup.cfg keeps its version; `--upgrade` takes the newest version of every package. `--check`
writes nothing and needs no network: it compares the digests of setup.cfg's requirements and of the pins with those in
the lock's head.

It imports nothing of the application, which can't start while a package is missing that the new lock would bring.

Exit codes: 0 the lock is written or, with --check, up to date; 1 uv finds no set of versions or, with --check, the lock
is older than setup.cfg; 2 bad arguments.
"""

import hashlib
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import NoReturn

import rich_click as click

ROOT = Path(__file__).resolve().parent.parent
SETUP_CFG = ROOT / "setup.cfg"
LOCK = ROOT / "requirements.lock"
# One set of pins for every platform and every Python from python_requires on: markers tell them apart.
UV_OPTIONS = ("--no-config", "--quiet", "--universal", "--fork-strategy=fewest", "--generate-hashes", "--no-header")


@click.command(help=__doc__)  # No `Script`: that imports the application, whose packages the lock may not have yet.
@click.option("--upgrade", is_flag=True, help="Take the newest version of every package that setup.cfg allows.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the lock was edited or is older than setup.cfg.")
def main(*, upgrade: bool, check: bool) -> None:
    if not check:
        _write(["--upgrade"] if upgrade else [])
    elif not LOCK.exists() or LOCK.read_text("utf-8") != _lock_text(_pins(LOCK.read_text("utf-8"))):
        fault = f"{LOCK.name} was edited, or is older than the requirements in {SETUP_CFG.name}"
        _fail(f"{fault}. Run `make lock` and commit it.")


def _write(options: list[str]) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    python = _setup_cfg()["options"]["python_requires"].removeprefix(">=")
    # uv reads the pins to keep from the file that it writes. A relative name keeps this folder's path out of the lock.
    files = ["--output-file", LOCK.name, SETUP_CFG.name, "--all-extras"]
    command = [uv, "pip", "compile", *UV_OPTIONS, *options, "--python-version", python, *files]
    if subprocess.run(command, cwd=SETUP_CFG.parent, check=False).returncode:
        _fail(f"uv could not lock the requirements in {SETUP_CFG.name}; {LOCK.name} is unchanged.")
    LOCK.write_text(_lock_text(LOCK.read_text("utf-8")), "utf-8")


def _lock_text(pins: str) -> str:
    """The file with these pins: its head has the digests of setup.cfg's requirements and of the pins."""
    return (
        f"# The requirements in setup.cfg: sha256:{_digest(_requirements())}\n"
        f"# The pins below: sha256:{_digest(pins)}\n"
        f"# Written by `make lock`; never edit it.\n{pins}"
    )


def _pins(lock: str) -> str:
    """The lock without its head of three lines."""
    return "".join(lock.splitlines(keepends=True)[3:])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _requirements() -> str:
    """Every line that decides on a version, without its place in the file."""
    setup_cfg = _setup_cfg()
    options = setup_cfg["options"]
    texts = [options["install_requires"], *setup_cfg["options.extras_require"].values()]
    lines = {line.strip() for text in texts for line in text.splitlines()} - {""}
    return "\n".join([options["python_requires"], *sorted(lines)])


def _setup_cfg() -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read_string(SETUP_CFG.read_text("utf-8"))
    return parser


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
