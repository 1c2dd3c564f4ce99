"""Every code that a problem can have, from the error classes. The codes are documented as a page, and in OpenAPI."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound

from app import errors
from app.api.problems import STATUS_OF_KIND, TENANCY, Refusal, status_and_code, title_of

blueprint = Blueprint("problems", __name__)
_HEAD = """# Problems

Every `code` that a problem can have, its status, and when it is answered. `flask api write-documents` makes this page
from the error classes. `/openapi.json` describes the members of a problem (`Problem`) and the codes of each operation.
An installation shows this list at `/problems/`, where the `type` of each problem leads.

| code | status | |
|---|---|---|"""
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1>{body}<p><a href="/problems/">All problems</a></p></body>
</html>
"""


@dataclass(frozen=True, slots=True, order=True)
class ProblemType:
    """One code: its title, its status, and when it is answered."""

    code: str
    title: str
    status: int
    description: str


def problem_types() -> list[ProblemType]:
    """All codes that HTTP answers with, in the order of the alphabet. All features must be imported before. A refusal
    of no kind that has a status is not of HTTP: those of messages.
    """
    answered = tuple(STATUS_OF_KIND)
    kinds: set[Refusal] = {
        kind for kind in _subclasses(errors.ServiceError) if "code" in vars(kind) and issubclass(kind, answered)
    }
    return sorted(map(_described, kinds | set(TENANCY)))


def _subclasses(kind: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    for each in kind.__subclasses__():
        if each.__module__.startswith("app."):
            yield each
        yield from _subclasses(each)


def _described(kind: Refusal) -> ProblemType:
    status, code = status_and_code(kind)
    paragraph = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]
    words = f"{getattr(kind, 'text', '')} {paragraph}".split()
    return ProblemType(code, title_of(code), status.value, " ".join(words))


def problems_markdown() -> str:
    """The page of all codes for the documents."""
    rows = (f"| `{each.code}` | {each.status} | {each.description} |" for each in problem_types())
    return "\n".join((_HEAD, *rows, ""))


@blueprint.get("/problems/")
def show_problems() -> Response:
    """All codes."""
    return _page("Problems", problem_types())


@blueprint.get("/problems/<code>")
def show_problem(code: str) -> Response:
    """One code: where the `type` of a problem leads."""
    found = [each for each in problem_types() if each.code == code]
    if not found:
        raise NotFound
    return _page(found[0].title, found)


def _page(title: str, shown: list[ProblemType]) -> Response:
    parts = (
        f'<section id="{each.code}"><h2>{escape(each.title)}</h2>'
        f"<p><code>{each.code}</code>, {each.status}</p><p>{escape(each.description)}</p></section>"
        for each in shown
    )
    return Response(_PAGE.format(title=escape(title), body="".join(parts)), mimetype="text/html")
