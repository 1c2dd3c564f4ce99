"""Everything that the documents name exists, and everything that exists is documented."""

import importlib
import re

import pytest
from click.testing import CliRunner

from app.config import ROOT, Settings

DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
# Settings that the embedded server sets, or that are not read from the environment.
NOT_A_VARIABLE = {"is_embedded"}


def text_of(*names: str) -> str:
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_a_document_names_exists(document: str) -> None:
    named = set(re.findall(r"`([a-z_]+(?:/[\w.*<>-]*)*/[\w.*-]*|[\w-]+\.(?:py|md|cfg|sql))`", text_of(document)))
    assert named
    missing = [path for path in named if not list(ROOT.glob(path.rstrip("/"))) and not list(ROOT.rglob(path))]
    missing = [path for path in missing if path not in {".data/"}]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_script_a_document_names_exists(document: str) -> None:
    named = set(re.findall(r"python -m scripts\.(\w+)", text_of(document)))
    assert not [name for name in named if not (ROOT / "scripts" / f"{name}.py").exists()]


def test_every_setting_is_documented() -> None:
    documented = set(re.findall(r"`([A-Z_]+)`", text_of("README.md")))
    settings = {name.upper() for name in Settings.__slots__ if name not in NOT_A_VARIABLE}
    assert settings <= documented


def test_every_variable_that_the_code_reads_is_documented() -> None:
    read = set()
    for path in [*ROOT.glob("app/**/*.py"), *ROOT.glob("scripts/**/*.py"), *ROOT.glob("tenant_schemas/*.py")]:
        source = path.read_text(encoding="utf-8")
        read |= set(re.findall(r"env\.\w+\(\s*\"([A-Z_]+)\"", source))
        read |= set(re.findall(r"os\.environ(?:\.get\(|\[)\"([A-Z_]+)\"", source))
    documented = set(re.findall(r"`([A-Z_]+)`", text_of("README.md")))
    assert read
    assert read <= documented


def scripts() -> list[str]:
    sources = sorted((ROOT / "scripts").glob("*.py"))
    return [path.stem for path in sources if "__main__" in path.read_text(encoding="utf-8")]


def test_every_script_is_in_the_readme() -> None:
    documented = text_of("README.md")
    assert not [name for name in scripts() if f"python -m scripts.{name}" not in documented]


@pytest.mark.parametrize("name", scripts())
def test_every_script_explains_itself(name: str) -> None:
    module = importlib.import_module(f"scripts.{name}")
    said = CliRunner().invoke(module.main, ["--help"], prog_name=name)
    assert said.exit_code == 0
    assert "Usage" in said.output


def test_every_test_that_architecture_names_exists() -> None:
    for path in re.findall(r"`(tests/[\w/.]+)`", text_of("ARCHITECTURE.md")):
        assert (ROOT / path).exists(), path
