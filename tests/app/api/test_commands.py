"""`flask api write-documents`, and whether its page is up to date."""

import json
from pathlib import Path

import pytest
from flask import Flask

from app.api import commands
from app.api.openapi import document_of
from app.api.problem_codes import problems_markdown


def test_the_page_of_problems_is_up_to_date() -> None:
    assert commands.PAGE.read_text() == problems_markdown(), "run `flask api write-documents`"


def test_it_writes_the_page_and_the_document_of_a_release(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "PAGE", tmp_path / "problems.md")
    monkeypatch.setattr(commands, "release_file", lambda version: tmp_path / f"openapi/{version}.json")
    done = app.test_cli_runner().invoke(args=["api", "write-documents", "--release"])
    kept = tmp_path / f"openapi/{commands.VERSION}.json"
    assert (done.exit_code, done.output.splitlines()) == (0, [str(tmp_path / "problems.md"), str(kept)])
    assert (tmp_path / "problems.md").read_text() == problems_markdown()
    assert json.loads(kept.read_text()) == document_of(app)
