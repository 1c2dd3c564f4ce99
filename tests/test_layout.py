"""The tests mirror the code, path for path: the path of a module is the path of its tests.

`path/to/module.py` is tested in `tests/path/to/test_module.py`. A further file about the same module adds its aspect to
the name: `test_module_aspect.py`. A function that a package's own `__init__.py` defines is tested in `test_function.py`
in the directory of the package. Everything else is an exception, with its reason.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.config import ROOT

TESTS: Final = ROOT / "tests"
# A directory stands for all that is below it.
EXCEPTIONS: Final = {
    "app/model": "compares the whole wallet with a model of it in plain Python, in random sequences",
    "browser": "a member's page in Chromium, before the service as it is deployed",
    "clients": "the journeys of a member and of an admin with the generated clients",
    "deploy/test_compose.py": "reads the compose file and the names in it",
    "deploy/test_systemd.py": "lets systemd read the units",
    "factories": "makes the objects that tests need, and tests nothing",
    "faults": "kills servers and programs in the middle of a migration, a backup or a restore",
    "isolation": "attacks the isolation of tenants: roles, sessions, routes, pools",
    "migrations/test_upgrade.py": "takes a ledger through both histories, from the first revision to the last",
    "scripts/test_runbook.py": "runs the commands of docs/operations.md",
    "servers": "starts the second server for the tests marked both_servers, and tests itself",
    "test_docs.py": "compares the documents with the code",
    "test_layout.py": "compares the tests with the code",
    "test_private_names.py": "names the private names of libraries that the code uses",
    "test_schemathesis.py": "sends generated requests to all operations of /openapi.json",
}


def files_of_tests() -> list[str]:
    return sorted(str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py"))


def directories() -> list[str]:
    holding_python = {path.parent.relative_to(TESTS) for path in TESTS.rglob("*.py")}
    return sorted(str(path) for path in holding_python - {Path()})


def module_of(test_file: str) -> Path | None:
    """The module that a test file tests, by its path alone."""
    code, words = ROOT / Path(test_file).parent, Path(test_file).stem.split("_")[1:]
    for count in range(len(words), 0, -1):
        module = code / f"{'_'.join(words[:count])}.py"
        if module.exists():
            return module
    package = code / "__init__.py"
    defined = rf"^def {'_'.join(words)}\("
    return package if package.exists() and re.search(defined, package.read_text(encoding="utf-8"), re.M) else None


def is_excepted(path: str) -> bool:
    return any(path == excepted or path.startswith(f"{excepted}/") for excepted in EXCEPTIONS)


def imported_by(path: Path) -> Iterator[str]:
    """The first names of the packages that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_every_test_file_has_its_module() -> None:
    assert len(files_of_tests()) > 100
    assert [path for path in files_of_tests() if not module_of(path) and not is_excepted(path)] == []


def test_every_directory_of_tests_is_one_of_the_code() -> None:
    assert len(directories()) > 20
    assert [path for path in directories() if not (ROOT / path).is_dir() and not is_excepted(path)] == []


def test_every_exception_is_needed_and_says_why() -> None:
    for path, reason in EXCEPTIONS.items():
        assert reason
        if path.endswith(".py"):
            assert (TESTS / path).is_file(), path
            assert not module_of(path), path
        else:
            assert (TESTS / path).is_dir(), path
            assert not (ROOT / path).exists(), path


def test_the_engines_tests_import_no_application() -> None:
    """Not directly: they take its histories, policy and routes from fixtures and factories."""
    imports = {path: set(imported_by(path)) for path in (TESTS / "tenant_schemas").rglob("*.py")}
    assert len(imports) > 30
    assert [str(path) for path, names in imports.items() if names & {"app", "scripts", "wsgi"}] == []
