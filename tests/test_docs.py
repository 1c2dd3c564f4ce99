"""The documents are true: every name in them exists, everything that exists is documented, their examples run, and the
site builds.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from flask import Flask
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from app.config import ROOT, Settings
from app.events.models import EVENT_TYPES
from tenant_schemas.testing.plugin import Database
from tests.factories.command_lines import STANDALONE, options_of, script_names, scripts

PAGES = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "tenant_schemas/README.md", *PAGES]
ENGINE = "tenant_schemas/README.md"
# Settings that the embedded server sets, or that are not read from the environment.
NOT_A_VARIABLE = {"is_embedded"}
# Ignored by git: made by `make clients`, `make run` and `make docs`.
MADE_LATER = {".clients/", ".data/", ".site/"}
# A path of the repository in backticks: with a slash, or a file by its name.
PATH = re.compile(r"`((?:[\w.*<>-]+/)+[\w.*-]*|[\w-]+\.(?:py|md|cfg|sql|yml))`")
SETTING = re.compile(r"`([A-Z]+(?:_[A-Z0-9]+)*)`")
EXAMPLE_FILE = re.compile(r"^\*\*`([\w./]+)`\*\*\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text_of(*names: str) -> str:
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names)


@cache
def sources(*patterns: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for pattern in patterns for path in sorted(ROOT.glob(pattern)))


@cache
def file_names() -> set[str]:
    """The names of all files below the folders of the code."""
    folders = ("app", "deploy", "docs", "migrations", "scripts", "tenant_schemas", "tests")
    return {path.name for folder in folders for path in (ROOT / folder).rglob("*.*")}


def test_the_readme_is_a_landing_page() -> None:
    assert len(text_of("README.md").splitlines()) <= 130


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_a_document_names_exists(document: str) -> None:
    text = text_of(document)
    own_example = {name for name, _ in EXAMPLE_FILE.findall(text)}
    named = set(PATH.findall(text)) - own_example - MADE_LATER
    missing = [path for path in named if not list(ROOT.glob(path.rstrip("/")))]
    assert not [path for path in missing if "/" in path or path not in file_names()]


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_every_link_of_a_document_leads_to_a_file(document: str) -> None:
    """As a git host follows links. The build of the site checks anchors, and the same links in the site."""
    targets = re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", text_of(document))
    assert not [target for target in targets if not (ROOT / document).parent.joinpath(target).is_file()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_sql_function_a_document_names_exists(document: str) -> None:
    made = sources("migrations/*/current.sql")
    assert not [name for name in re.findall(r"`(\w+_v\d+)`", text_of(document)) if f"FUNCTION {name}(" not in made]


def test_every_sql_function_in_the_picture_exists() -> None:
    made = sources("migrations/*/current.sql")
    named = re.findall(r"(\w+_v\d+)\(\)", text_of("docs/house.svg"))
    assert named
    assert not [name for name in named if f"FUNCTION {name}(" not in made]


def test_every_name_in_the_table_of_promises_exists() -> None:
    """The classes, functions, constraints and tables that keep a promise."""
    code = sources("app/**/*.py", "scripts/**/*.py", "tenant_schemas/**/*.py", "migrations/**/*.sql", "Makefile")
    cells = re.findall(r"^\| .*? \| (.*?) \|", text_of("docs/promises.md"), re.MULTILINE)
    names = {name for cell in cells for name in re.findall(r"`\*?\.?([\w.]+)`", cell) if "/" not in name}
    assert len(names) > 20
    assert not [name for name in names if not re.search(rf"{re.escape(name.rpartition('.')[2])}\b", code)]


# Commands.


def flask_commands(app: Flask) -> dict[str, click.Command]:
    """The application's own `flask` commands, as `group command`."""
    groups = {name: group for name, group in app.cli.commands.items() if isinstance(group, click.Group)}
    return {
        f"{name} {command_name}": command
        for name, group in groups.items()
        if name != "openapi"  # A command of flask-smorest.
        for command_name, command in group.commands.items()
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_script_and_option_a_document_names_exists(document: str) -> None:
    known = scripts()
    named = re.findall(r"\bscripts\.(\w+)([^`\n|]*)", text_of(document).replace("\\\n", " "))
    named = [(name, rest) for name, rest in named if name not in STANDALONE]
    assert not [name for name, _ in named if name not in known]
    wrong = [
        (name, option)
        for name, rest in named
        if name != "psql"  # The arguments after its login are psql's.
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest)
        if option not in options_of(known[name])
    ]
    assert not wrong


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_flask_command_and_option_a_document_names_exists(app: Flask, document: str) -> None:
    known = flask_commands(app)
    named = re.findall(r"\bflask ((?:wallets|members|auth) [\w-]+)([^`\n|]*)", text_of(document))
    assert not [name for name, _ in named if name not in known]
    wrong = [
        (name, option)
        for name, rest in named
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest)
        if option not in options_of(known[name])
    ]
    assert not wrong


def test_every_script_and_flask_command_is_documented(app: Flask) -> None:
    documented = text_of("docs/commands.md")
    wanted = [f"python -m scripts.{name}`" for name in script_names()]
    wanted += [f"`flask {name}`" for name in flask_commands(app)]
    assert not [command for command in wanted if command not in documented]


def test_every_target_of_make_is_documented() -> None:
    targets = re.findall(r"^\.PHONY: (.*)", text_of("Makefile"), re.MULTILINE)
    documented = text_of("docs/commands.md")
    assert targets
    assert not [target for target in " ".join(targets).split() if f"`make {target}`" not in documented]


@pytest.mark.parametrize("name", scripts())
def test_every_script_explains_itself(name: str) -> None:
    said = CliRunner().invoke(scripts()[name], ["--help"], prog_name=name)
    assert said.exit_code == 0
    assert "Usage" in said.output
    assert "Exit codes: " in said.output


# Settings.


def variables_read(*patterns: str) -> set[str]:
    read = r"(?:env\.\w+\(|os\.environ(?:\.get\(|\[)|envvar=)\s*\"([A-Z0-9_]+)\""
    return set(re.findall(read, sources(*patterns)))


def test_every_setting_is_documented() -> None:
    settings = {name.upper() for name in Settings.__slots__ if name not in NOT_A_VARIABLE}
    assert settings <= set(SETTING.findall(text_of("docs/settings.md")))


def test_every_variable_that_the_code_reads_is_documented() -> None:
    read = variables_read("app/**/*.py", "scripts/**/*.py", "tenant_schemas/**/*.py") - {"FLASK_RUN_FROM_CLI", "PATH"}
    assert read
    assert read <= set(SETTING.findall(text_of("docs/settings.md")))


def test_every_setting_a_document_explains_is_read() -> None:
    explained = re.findall(r"^\| (`[A-Z].*?) \|", text_of("docs/settings.md"), re.MULTILINE)
    named = {name for cell in explained for name in SETTING.findall(cell)}
    read = variables_read("app/**/*.py", "scripts/**/*.py", "tenant_schemas/**/*.py", "tests/**/*.py")
    assert len(named) > 30
    assert named <= read | {name.upper() for name in Settings.__slots__}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_name_in_capitals_a_document_names_exists(document: str) -> None:
    """A setting, or a constant of the code."""
    named = {name for name in SETTING.findall(text_of(document)) if "_" in name}
    known = sources("app/**/*.py", "scripts/**/*.py", "tenant_schemas/**/*.py", "tests/**/*.py", "docs/operations.md")
    assert not [name for name in named if not re.search(rf"\b{name}\b", known)]


# The API.


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_route_a_document_names_exists(app: Flask, document: str) -> None:
    rules = {
        (method, re.sub(r"<[^>]*>|\{[^}]*\}", "*", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
    named = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[\w/{}.-]+)", text_of(document))
    missing = [(method, path) for method, path in named if (method, re.sub(r"\{[^}]*\}", "*", path)) not in rules]
    # A route below the tenant's slug is the one without it (`/api/eur/wallet`).
    assert not [(method, path) for method, path in missing if (method, path.replace("/eur/", "/", 1)) not in rules]


def test_every_problem_code_that_is_explained_exists() -> None:
    rows = re.findall(r"^\| (?:\d{3}.*?) \| (.*?) \|", text_of("docs/integrating.md"), re.MULTILINE)
    codes = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)} - {"errors"}
    assert len(codes) > 20
    assert not [code for code in codes if f'"{code}"' not in sources("app/**/*.py")]


def test_every_type_of_event_is_documented() -> None:
    """By its name, or for the outcomes of commands by the names of its parts."""
    text = text_of("docs/events.md")
    named = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+\.v1)`", text))
    missing = [name for name in EVENT_TYPES if name not in named]
    verbs = {name.split(".")[1] for name in missing}
    assert {name for name in missing if name.split(".")[2] in {"completed", "refused"}} == set(missing)
    assert not [verb for verb in verbs if f"`{verb}`" not in text]
    assert named <= set(EVENT_TYPES)


# Benchmarks.


def test_every_table_of_a_benchmark_says_what_was_measured_where_and_when() -> None:
    """The commit and the day stand beside each table, the machine at the top of the page."""
    top, *sections = text_of("docs/benchmarks.md").split("\n## ")
    tables = [section for section in sections if "|---|" in section]
    assert len(tables) > 5
    for pattern in (r"measured\s+on\s+`[0-9a-f]{7}`", r"\b20\d\d-\d\d-\d\d\b"):
        assert not [section for section in tables if not re.search(pattern, section)]
    assert re.search(r"machine with \d+ cores", " ".join(top.split()))


# Examples.


@pytest.mark.changes_roles
def test_the_engines_readme_works_when_pasted(tmp_path: Path, database: Database) -> None:
    """Its files make an application, and that application's tests pass on the test server, in one process."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    files = EXAMPLE_FILE.findall(text_of(ENGINE))
    assert len(files) > 5
    for name, content in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tenant_schemas.testing.plugin", "-W", "error"],
        cwd=tmp_path,
        env=own | {"TEST_DATABASE_URL": database.server_url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


# The site.


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as by `make check`, but into another folder."""
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


class Resources(HTMLParser):
    """The resources that a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and not {"canonical", "prev", "next"}.isdisjoint((given.get("rel") or "").split()):
            return
        names = {"link": ("href",), "a": ()}.get(tag, ("src", "srcset", "data", "poster"))
        self.loaded += [target for name in names if (target := given.get(name))]


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        found = Resources()
        found.feed(page.read_text(encoding="utf-8"))
        assert found.loaded
        assert not [target for target in found.loaded if re.match(r"(?:[a-z]+:)?//", target)], page
    loading = re.compile(r"(?:@import\s+(?:url\()?|url\(|href=)\s*[\"']?([^\"')\s]+)")
    for style in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        loads = loading.findall(style.read_text(encoding="utf-8"))
        assert not [target for target in loads if re.match(r"(?:[a-z]+:)?//", target)], style


def test_the_site_has_the_documents_that_stand_outside_docs(site: Path) -> None:
    for page, words in {
        "index.html": "Five minutes with curl",
        "engine.html": "A tenancy engine for Flask",
        "contributing.html": "Recipes",
        "changelog.html": "Unreleased",
    }.items():
        assert words in (site / page).read_text(encoding="utf-8")


def test_a_broken_link_is_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To a missing page, to a missing heading of a page, and to a missing heading of a document outside docs/."""
    pages = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", pages)
    broken = ("gone.md", "settings.md#gone", "../README.md#gone")
    with (pages / "tour.md").open("a") as tour:
        tour.write("\n" + " ".join(f"[gone]({target})" for target in broken) + "\n")
    with pytest.raises(Abort):
        build(load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(pages), site_dir=str(tmp_path / "site"), strict=True))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == len(broken), warnings
    assert all("tour.md" in warning for warning in warnings)
