"""What breaks a client between two OpenAPI documents of the service, one line each. Additions break nothing: new
operations, new optional parameters, new members and words of answers.
"""

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
_METHODS = ("get", "post", "put", "patch", "delete")


def breaking_changes(old: Json, new: Json) -> list[str]:
    """What a client of the old document can't rely on in the new one."""
    found: list[str] = []
    for path, item in old["paths"].items():
        for method in (name for name in _METHODS if name in item):
            label = f"{method.upper()} {path}"
            later = new["paths"].get(path, {}).get(method)
            if later is None:
                found.append(f"{label} is gone")
                continue
            changes = _Changes(old, new)
            found += [f"{label}: {change}" for change in changes.of_operation(item[method], later)]
            found += [f"{label}: {change}" for change in changes.of_parameters(item, new["paths"][path])]
    return sorted(set(found))


class _Changes:
    def __init__(self, old: Json, new: Json) -> None:
        self.old, self.new = old, new
        self.seen: set[tuple[str, str, bool]] = set()

    def of_operation(self, old: Json, new: Json) -> Iterator[str]:
        if old["operationId"] != new["operationId"]:
            yield f"operationId is {new['operationId']}, was {old['operationId']}"
        yield from self.of_parameters(old, new)
        if "requestBody" in new and "requestBody" not in old:
            yield "a body is needed"
        elif "requestBody" in old and "requestBody" in new:
            bodies = (each["requestBody"]["content"]["application/json"]["schema"] for each in (old, new))
            yield from self.of_schema(*bodies, "body", is_request=True)
        for status, answer in old["responses"].items():
            if status.startswith("2"):
                yield from self._of_answer(status, answer, new["responses"].get(status))

    def _of_answer(self, status: str, old: Json, new: Json | None) -> Iterator[str]:
        if new is None:
            yield f"no answer {status}"
            return
        yield from (
            f"{status} has no header {name}" for name in old.get("headers", {}) if name not in new.get("headers", {})
        )
        for media_type, about in old.get("content", {}).items():
            if media_type not in new.get("content", {}):
                yield f"{status} is not {media_type}"
            else:
                later = new["content"][media_type]["schema"]
                yield from self.of_schema(about["schema"], later, status, is_request=False)

    def of_parameters(self, old: Json, new: Json) -> Iterator[str]:
        before = {(each["in"], each["name"]): each for each in old.get("parameters", ())}
        after = {(each["in"], each["name"]): each for each in new.get("parameters", ())}
        for key, about in before.items():
            if key not in after:
                yield f"{key[0]} parameter {key[1]} is gone"
            else:
                yield from self.of_schema(about["schema"], after[key]["schema"], key[1], is_request=True)
        for key, about in after.items():
            if about.get("required") and not before.get(key, {}).get("required"):
                yield f"{key[0]} parameter {key[1]} is needed"

    def of_schema(self, old: Json, new: Json, place: str, *, is_request: bool) -> Iterator[str]:
        names = (old.get("$ref", ""), new.get("$ref", ""), is_request)
        if names[0] and names in self.seen:
            return
        self.seen.add(names)
        old, new = _resolved(old, self.old), _resolved(new, self.new)
        if old.get("type") != new.get("type"):
            yield f"{place} is {new.get('type')}, was {old.get('type')}"
        if is_request:
            yield from (
                f"{place} takes no {word}" for word in old.get("enum", ()) if word not in new.get("enum", [word])
            )
            if "enum" in new and "enum" not in old:
                yield f"{place} takes only some words"
        yield from self._of_members(old, new, place, is_request=is_request)
        if "items" in old and "items" in new:
            yield from self.of_schema(old["items"], new["items"], f"{place}[]", is_request=is_request)
        for one, other in zip(_forms(old), _forms(new), strict=False):
            yield from self.of_schema(one, other, place, is_request=is_request)

    def _of_members(self, old: Json, new: Json, place: str, *, is_request: bool) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name, about in before.items():
            if name not in after:
                yield f"{place}.{name} is gone"
            else:
                yield from self.of_schema(about, after[name], f"{place}.{name}", is_request=is_request)
        needed, was = set(new.get("required", ())), set(old.get("required", ()))
        if is_request:
            yield from (f"{place}.{name} is needed" for name in needed - was)
        else:
            yield from (f"{place}.{name} may be missing" for name in (was - needed) & set(after))


def _resolved(schema: Json, document: Json) -> Json:
    if "$ref" not in schema:
        return schema
    found: Json = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _forms(schema: Json) -> list[Json]:
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
