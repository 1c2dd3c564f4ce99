"""`flask api …`: documents that are generated from the code."""

import json
from pathlib import Path

import click
from flask import current_app
from flask.cli import AppGroup

from app.api.openapi import document_of
from app.api.problem_codes import problems_markdown
from app.config import ROOT
from app.version import VERSION

api = AppGroup("api", help="Documents of the API.")
PAGE = ROOT / "docs/problems.md"


def release_file(version: str) -> Path:
    """Where the OpenAPI document of a release is kept."""
    return ROOT / f"docs/openapi/{version}.json"


@api.command("write-documents")
@click.option("--release", is_flag=True, help="Write the OpenAPI document of this release too.")
def write_documents(*, release: bool) -> None:
    """Write docs/problems.md, the page of all codes that a problem can have, and print the path of each written file.

    With --release the OpenAPI document is kept too: tests compare later documents with it.
    """
    pages = {PAGE: problems_markdown()}
    if release:
        pages[release_file(VERSION)] = json.dumps(document_of(current_app), separators=(",", ":")) + "\n"
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        click.echo(path)
