"""Lint the description of the API, and make clients from it: a Python package and a TypeScript module. `make clients`
runs this.

The folder gets `openapi.json`, `python/` (a package to install with pip) and `typescript/` (`client.ts` compiled, with
its types). Earlier clients in it are replaced. The TypeScript client needs Node.js and npm, which install what
`scripts/clients/package-lock.json` names into `scripts/clients/node_modules`.

Example:
    python -m scripts.build_clients --to .clients

Exit codes: 0 the clients are made; 1 a linter or a generator refused, and said why; 2 bad arguments, or npm is missing.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import rich_click as click

from app.config import ROOT
from scripts.support.api_description import api_description
from scripts.support.console import BAD_ARGUMENTS, FAILED, exit_with
from scripts.support.script import Script

SOURCES = ROOT / "scripts" / "clients"
MODULES = SOURCES / "node_modules"


@click.command(cls=Script, help=__doc__)
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / ".clients",
    help="The folder for the clients. Default: .clients in the repository.",
)
def main(*, folder: Path) -> None:
    if shutil.which("npm") is None:
        exit_with("npm is not installed: install Node.js 18 or newer with npm.", BAD_ARGUMENTS)
    folder.mkdir(parents=True, exist_ok=True)
    description = folder / "openapi.json"
    description.write_bytes(api_description())
    install_node_modules()
    _lint(description)
    build_python(description, folder / "python")
    _build_typescript(description, folder / "typescript")
    print(f"Made {folder}/python and {folder}/typescript")


def install_node_modules() -> None:
    """Install the Node.js programs, unless those of this lock file are installed. Two callers wait for each other."""
    lock_file, installed = SOURCES / "package-lock.json", MODULES / ".installed"
    with (SOURCES / "package.json").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not installed.exists() or installed.read_bytes() != lock_file.read_bytes():
            _run(["npm", "ci", "--silent"], SOURCES)
            installed.write_bytes(lock_file.read_bytes())


def _lint(description: Path) -> None:
    """By spectral, with the rules of the house. openapi-typescript lints too, with those of redocly.yaml."""
    rules = ["--ruleset", str(SOURCES / "spectral.yaml"), "--fail-severity", "hint", "--quiet"]
    _run([str(MODULES / ".bin" / "spectral"), "lint", str(description), *rules], SOURCES)


def build_python(description: Path, folder: Path) -> None:
    """Make the Python client of this description. Exits 1 if the generator refuses it."""
    program = str(Path(sys.executable).with_name("openapi-python-client"))
    options = ["--meta", "setup", "--overwrite", "--fail-on-warning", "--config", str(SOURCES / "python.yaml")]
    _run([program, "generate", "--path", str(description), "--output-path", str(folder), *options], folder.parent)


def _build_typescript(description: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    types = folder / "schema.ts"
    _run([str(MODULES / ".bin" / "openapi-typescript"), str(description), "--output", str(types)], SOURCES)
    for name in ("client.ts", "tsconfig.json"):
        shutil.copy(SOURCES / name, folder)
    (folder / "package.json").write_text(_package(description))
    modules = folder / "node_modules"
    if not modules.is_symlink():
        modules.symlink_to(os.path.relpath(MODULES, folder))
    _run([str(MODULES / ".bin" / "tsc"), "--project", str(folder)], folder)


def _package(description: Path) -> str:
    """package.json of the TypeScript client: the version of the API, and the library that it is made for."""
    needed = json.loads((SOURCES / "package.json").read_text())["devDependencies"]
    about = {
        "name": "schema-wallet-client",
        "version": json.loads(description.read_text())["info"]["version"],
        "type": "module",
        "exports": "./client.js",
        "dependencies": {"openapi-fetch": needed["openapi-fetch"]},
    }
    return json.dumps(about, indent=2) + "\n"


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    if done.returncode:
        exit_with(f"{' '.join(command)} failed:\n{done.stdout}", FAILED)


if __name__ == "__main__":
    main()
