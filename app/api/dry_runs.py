"""Dry runs over HTTP: `?dryRun=true` answers 200 with the result that the request would have, marked `dryRun`, and
writes nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Response
from marshmallow import fields

from app.api.answers import json_answer
from app.api.dumper import dumper_of
from app.api.fields import Answer, QueryFlag, Schema


class DryRunQuery(Schema):
    dry_run = QueryFlag(
        data_key="dryRun", load_default=False, metadata={"description": "answer with the result, and write nothing"}
    )


class MayBeDryRun(Answer):
    """A base of the answers to requests that may be dry runs. Both have one schema: a typed client tells two apart."""

    may_lack = ("dry_run",)

    dry_run = fields.Boolean(
        data_key="dryRun",
        metadata={"description": "true in a dry run only: nothing was written, and a new id is of no object"},
    )


def dry_run_answer(answer: type[MayBeDryRun]) -> Callable[[Any, Mapping[str, str] | None], Response]:
    """A function that makes the 200 of a dry run, for answers of this schema."""
    dump = dumper_of(answer())

    def answered(result: Any, headers: Mapping[str, str] | None = None) -> Response:
        return json_answer(dump(result) | {"dryRun": True}, 200, headers)

    return answered
