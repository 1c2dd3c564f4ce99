"""What breaks a client between two OpenAPI documents of the service, one line each. Additions break nothing: new
operations, new optional parameters, new members and words of answers.
"""

from collections.abc import Iterator
from math import inf
from typing import Any

Json = dict[str, Any]
_METHODS = ("get", "post", "put", "patch", "delete")


def breaking_changes(old: Json, new: Json) -> list[str]:
    """What a client of the old document can't rely on in the new one."""
    found = list(_of_schemes(old, new))
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


def _of_schemes(old: Json, new: Json) -> Iterator[str]:
    """What a client sends by each scheme, and where."""
    after = new.get("components", {}).get("securitySchemes", {})
    for name, about in old.get("components", {}).get("securitySchemes", {}).items():
        if name not in after:
            yield f"security scheme {name} is gone"
            continue
        for member in ("type", "scheme", "in", "name", "flows", "openIdConnectUrl"):
            if about.get(member) != after[name].get(member):
                yield f"security scheme {name} has the {member} {after[name].get(member)}, had {about.get(member)}"


class _Changes:
    def __init__(self, old: Json, new: Json) -> None:
        self.old, self.new = old, new
        self.seen: set[tuple[str, str, bool]] = set()

    def of_operation(self, old: Json, new: Json) -> Iterator[str]:
        if old["operationId"] != new["operationId"]:
            yield f"operationId is {new['operationId']}, was {old['operationId']}"
        yield from self.of_parameters(old, new)
        yield from self._of_body(old.get("requestBody"), new.get("requestBody"))
        yield from self._of_security(old, new)
        for status, answer in old["responses"].items():
            yield from self._of_answer(status, answer, new["responses"].get(status))

    def _of_body(self, old: Json | None, new: Json | None) -> Iterator[str]:
        if new is not None and new.get("required") and not (old or {}).get("required"):
            yield "a body is needed"
        if old is None:
            return
        if new is None:
            yield "takes no body"
            return
        for media_type, about in old["content"].items():
            if media_type not in new["content"]:
                yield f"body is not {media_type}"
            else:
                later = new["content"][media_type]["schema"]
                yield from self.of_schema(about["schema"], later, "body", is_request=True)

    def _of_security(self, old: Json, new: Json) -> Iterator[str]:
        """Each way to authenticate must still be enough. No way at all is one: nothing is needed."""
        before, after = (
            [set(way) for way in operation.get("security", document.get("security", ()))] or [set()]
            for operation, document in ((old, self.old), (new, self.new))
        )
        for way in before:
            if not any(later <= way for later in after):
                yield f"{' and '.join(sorted(way)) or 'nothing'} no longer authenticates"

    def _of_answer(self, status: str, old: Json, new: Json | None) -> Iterator[str]:
        if new is None:
            yield f"no answer {status}"
            return
        old, new = _resolved(old, self.old), _resolved(new, self.new)
        yield from (
            f"{status} has no code {code}" for code in old.get("x-codes", ()) if code not in new.get("x-codes", ())
        )
        yield from self._of_headers(status, old.get("headers", {}), new.get("headers", {}))
        for media_type, about in old.get("content", {}).items():
            if media_type not in new.get("content", {}):
                yield f"{status} is not {media_type}"
            else:
                later = new["content"][media_type]["schema"]
                yield from self.of_schema(about["schema"], later, status, is_request=False)

    def _of_headers(self, status: str, old: Json, new: Json) -> Iterator[str]:
        for name, about in old.items():
            if name not in new:
                yield f"{status} has no header {name}"
                continue
            before, after = _resolved(about, self.old), _resolved(new[name], self.new)
            if before.get("required") and not after.get("required"):
                yield f"{status} may have no header {name}"
            yield from self.of_schema(before["schema"], after["schema"], f"{status} {name}", is_request=False)

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
        if names[0] and names[1]:
            if names in self.seen:
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
            yield from _narrowed(old, new, place)
        before, after = old.get("format"), new.get("format")
        if before != after and (after if is_request else before):
            yield f"{place} has the format {after}, had {before}"
        yield from self._of_members(old, new, place, is_request=is_request)
        if "items" in old and "items" in new:
            yield from self.of_schema(old["items"], new["items"], f"{place}[]", is_request=is_request)
        more = len(_forms(new)) - len(_forms(old))
        if more < 0 if is_request else more > 0:
            yield f"{place} has {len(_forms(new))} forms, had {len(_forms(old))}"
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


def _narrowed(old: Json, new: Json, place: str) -> Iterator[str]:
    """Which bounds of a request's value admit less than before."""
    for bound in ("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties"):
        if bound in new and new[bound] < old.get(bound, inf):
            yield f"{place} has the {bound} {new[bound]}, had {old.get(bound)}"
    for bound in ("minLength", "minimum", "exclusiveMinimum", "minItems", "minProperties"):
        least = -inf if bound in {"minimum", "exclusiveMinimum"} else 0
        if bound in new and new[bound] > old.get(bound, least):
            yield f"{place} has the {bound} {new[bound]}, had {old.get(bound)}"
    for rule in ("pattern", "multipleOf", "const"):
        if rule in new and new[rule] != old.get(rule):
            yield f"{place} has the {rule} {new[rule]}, had {old.get(rule)}"
    if new.get("additionalProperties") is False and old.get("additionalProperties", True) is not False:
        yield f"{place} takes no other members"


def _resolved(part: Json, document: Json) -> Json:
    if "$ref" not in part:
        return part
    kind, name = part["$ref"].split("/")[-2:]
    found: Json = document["components"][kind][name]
    return found


def _forms(schema: Json) -> list[Json]:
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
