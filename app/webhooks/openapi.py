"""The part of the API's description that tells consumers what is sent to them: OpenAPI's `webhooks`."""

from functools import partial
from typing import Any, Final

from app.api.openapi import Documentation
from app.api.spelling import camel_case
from app.webhooks.event_schemas import SCHEMAS

Json = dict[str, Any]

MEDIA_TYPE: Final = "application/cloudevents+json"
_HEADERS: Final = {
    "webhook-id": "the id of the event: a message that is sent again has the same",
    "webhook-timestamp": "when it was sent, in seconds since 1970; refuse what is older than five minutes",
    "webhook-signature": "v1 and the HMAC-SHA256 of id, timestamp and body (Standard Webhooks), of each valid secret",
}


def describe_webhooks(api: Documentation) -> None:
    """Add all events to the description. Call it after the blueprints are registered."""
    api.describe_later(partial(_describe_webhooks, api))


def _describe_webhooks(api: Documentation) -> None:
    described: Json = {}
    for name, (schema, types) in SCHEMAS.items():
        api.spec.components.schema(name, schema=schema)
        described |= {each: {"post": _operation(each, name)} for each in types}
    api.spec.options["webhooks"] = described


def _operation(event_type: str, schema_name: str) -> Json:
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{schema_name}"}}}
    return {
        "operationId": camel_case("on_" + event_type.replace(".", "_")),
        "summary": f"An event of type {event_type}.",
        "tags": ["webhooks"],
        "security": [],
        "parameters": [
            {"in": "header", "name": header, "description": text, "required": True, "schema": {"type": "string"}}
            for header, text in _HEADERS.items()
        ],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "2XX": {"description": "It was taken. Any other answer, or none in 20 seconds, has it sent again."},
            "410": {"description": "Disables the webhook."},
        },
    }
