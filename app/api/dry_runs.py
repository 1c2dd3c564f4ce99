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


def dry_run_schema(answer: type[Answer]) -> type[Answer]:
    """The schema of a dry run's answer: that of the request, and `dryRun`."""
    marked = fields.Boolean(
        data_key="dryRun", metadata={"description": "nothing was written, and the id is of no object"}
    )
    return type(f"DryRun{answer.__name__}", (answer,), {"dry_run": marked})


def dry_run_answer(answer: type[Answer]) -> Callable[[Any, Mapping[str, str] | None], Response]:
    """A function that makes the 200 of a dry run, for answers of this schema, which `dry_run_schema` made."""
    dump = dumper_of(answer())

    def answered(result: Any, headers: Mapping[str, str] | None = None) -> Response:
        return json_answer(dump(result) | {"dryRun": True}, 200, headers)

    return answered
