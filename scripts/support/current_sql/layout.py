"""A folded schema written down to be read: tables first, each with what belongs to it, then views, then functions.

What an object needs when it is made stands above it, so that the file can be run from top to bottom.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from scripts.support.current_sql.grants import TENANT_ROLE
from scripts.support.current_sql.parts import Constraint, Grant, Part, Schema, Table, joined, mentioned
from tenant_schemas.sql_lint.lexer import tokens_of
from tenant_schemas.sql_lint.schema_model import foreign_key

_WIDTH: Final = 120
_VERSIONED: Final = re.compile(r"(?P<stem>.+)_v(?P<version>\d+)")
_TYPES: Final = ("type", "domain", "sequence")
_FUNCTIONS: Final = ("function", "procedure", "aggregate")
_STANDALONE: Final = ("table", "view", *_TYPES, *_FUNCTIONS)
# What stands beside an object, in this order.
_BESIDE: Final = (
    *("extension", "index", "constraint", "alteration", "statistics", "trigger", "trigger state", "rule"),
    *("row security", "policy", "comment", "grant", "revoke"),
)


class Layout:
    """Each object is written once, and so `sections` can be asked for once."""

    def __init__(self, schema: Schema) -> None:
        self._tenant_grants = [grant for grant in schema.grants if grant.roles == [TENANT_ROLE]]
        grants = [grant for grant in schema.grants if grant.roles != [TENANT_ROLE]]
        parts = [*schema.parts.values(), *_cut_circles(schema), *grants]
        self._kinds = {part.name: part.kind for part in parts if part.kind in _STANDALONE}
        self._superseded = _superseded_by(parts)
        self._owned: dict[str, list[Part]] = {}
        for part in sorted(parts, key=lambda part: (*_STANDALONE, *_BESIDE).index(part.kind)):
            self._owned.setdefault(part.owner, []).append(part)
        for name, successor in self._superseded.items():
            function = self._owned[name][0]
            function.comments = joined([[f"-- Superseded by {successor}."], function.comments])
        self._done: set[str] = set()

    def contents(self) -> str:
        """The names in each section."""
        named = {"Tables": ("table",), "Views": ("view",), "Functions": _FUNCTIONS}
        lists = {title: ", ".join(self._living(*kinds)) for title, kinds in named.items()}
        lists["Superseded"] = ", ".join(f"{name} by {successor}" for name, successor in self._superseded.items())
        lines = [
            line
            for title, names in lists.items()
            if names
            for line in textwrap.wrap(f"{title}: {names}.", _WIDTH - len("-- "), subsequent_indent="  ")
        ]
        return "\n".join(f"-- {line}" for line in lines)

    def sections(self) -> Iterator[str]:
        """All of the schema, in the order in which it is read."""
        sections = {
            "The schema itself": [owner for owner in self._owned if owner not in self._kinds],
            "Types and sequences": self._living(*_TYPES),
            "Tables": self._living("table"),
            "Views": self._living("view"),
            "Functions": self._living(*_FUNCTIONS),
            "Superseded functions: code of an earlier release may still call them": list(self._superseded),
        }
        for title, owners in sections.items():
            if parts := [part for owner in owners for part in self._placed(owner)]:
                yield _section(title, _together(parts))
        if self._tenant_grants:
            yield _section("Rights of the tenant's role", _tenant_rights(self._tenant_grants))

    def _living(self, *kinds: str) -> list[str]:
        return [name for name, kind in self._kinds.items() if kind in kinds and name not in self._superseded]

    def _placed(self, owner: str) -> Iterator[Part]:
        """An object with what belongs to it. Above it come the tables that any of that needs; anything else that is
        needed comes where it is needed first, such as a trigger's function.
        """
        if owner in self._done:
            return
        self._done.add(owner)
        needed = [(part, mentioned(part.sql())) for part in self._owned[owner]]
        for _, names in needed:
            for table in self._living("table"):
                if table in names:
                    yield from self._placed(table)
        for part, names in needed:
            for name in self._kinds:
                if name in names:
                    yield from self._placed(name)
            yield part


def _superseded_by(parts: Sequence[Part]) -> dict[str, str]:
    """The functions that have a later version, each with the latest, but for those that other living objects use."""
    versions = {
        part.name: (match["stem"], int(match["version"]))
        for part in parts
        if part.kind in _FUNCTIONS and (match := _VERSIONED.fullmatch(part.name))
    }
    latest = {stem: name for name, (stem, _) in sorted(versions.items(), key=lambda item: item[1])}
    old = {name: latest[stem] for name, (stem, _) in versions.items() if latest[stem] != name}
    while used := _used(parts, old):
        old = {name: successor for name, successor in old.items() if name not in used}
    return old


def _used(parts: Sequence[Part], old: Mapping[str, str]) -> set[str]:
    """Which of these functions are named by any other part, also in the body of a function."""
    others = (part for part in parts if part.name not in old)
    return {name for part in others for name in mentioned(part.sql(), in_strings=True) if name in old}


def _cut_circles(schema: Schema) -> Iterator[Part]:
    """Take out of the tables the foreign keys that lead back to a later table which needs this one, as statements that
    stand beside the later table.
    """
    tables = {part.name: part for part in schema.parts.values() if isinstance(part, Table)}
    order = list(tables)
    for name, table in tables.items():
        for constraint in list(table.constraints):
            later = _referred(constraint)
            if later in tables and order.index(later) > order.index(name) and _needs(later, name, tables):
                table.constraints.remove(constraint)
                text = f"ALTER TABLE {name} ADD {constraint.text}"
                yield Part("constraint", f"{name}.{constraint.name}", later, text, constraint.above)


def _referred(constraint: Constraint) -> str:
    key = foreign_key("", [*tokens_of(constraint.text)])
    return key.referenced if key else ""


def _needs(name: str, other: str, tables: Mapping[str, Table]) -> bool:
    """Whether foreign keys lead from a table to the other one."""
    reached, ahead = {name}, [name]
    while ahead:
        found = {_referred(constraint) for constraint in tables[ahead.pop()].constraints} - reached
        reached |= found
        ahead += [one for one in found if one in tables]
    return other in reached


def _together(parts: Sequence[Part]) -> str:
    """The lines of one object stand together, but for those with a comment of their own."""
    text = ""
    for before, part in zip([None, *parts], parts, strict=False):
        is_next_line = before and before.owner == part.owner and not part.comments and before.kind not in _FUNCTIONS
        text += ("\n" if is_next_line else "\n\n") * bool(text) + part.printed()
    return text


def _tenant_rights(grants: Sequence[Grant]) -> str:
    """One DO, as the revisions write it, with the objects of equal grants together."""
    objects: dict[tuple[str, str], list[str]] = {}
    for grant in grants:
        kind = grant.text[: -len(grant.name)]
        objects.setdefault((", ".join(grant.privileges), kind), []).append(grant.name)
    lines = joined(grant.comments for grant in grants)
    lines += ["DO $$", "DECLARE", "    tenant_role text := current_setting('tenant_schemas.tenant_role');", "BEGIN"]
    for (privileges, kind), names in objects.items():
        text = f"GRANT {privileges} ON {kind}{', '.join(names)} TO %I"
        first, *rest = textwrap.wrap(text, _WIDTH - len("        ' ', tenant_role);"), break_on_hyphens=False)
        pieces = "\n        ".join([f"'{first}'", *(f"' {piece}'" for piece in rest)])
        lines.append(f"    EXECUTE format({pieces}, tenant_role);")
    return "\n".join([*lines, "END $$;"])


def _section(title: str, text: str) -> str:
    line = "-" * _WIDTH
    return f"{line}\n-- {title}\n{line}\n\n{text}"
