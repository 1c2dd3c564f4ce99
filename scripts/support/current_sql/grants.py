"""Privileges: what GRANT and REVOKE give and take, also inside a DO, where format() puts in the tenant's role."""

from collections.abc import Iterator, Sequence
from typing import Final

from scripts.support.current_sql.parts import Grant, NotFoldable, Part, Schema, Source
from tenant_schemas.sql_lint.lexer import Reader, Token, split_by_commas, tokens_of

# How a grant that format() puts together names the tenant's role.
TENANT_ROLE: Final = "tenant_role"
_KINDS: Final = ("table", "function", "procedure", "routine", "schema", "sequence", "type", "domain")


def grant_or_revoke(schema: Schema, source: Source, tokens: Sequence[Token], comments: list[str]) -> None:
    """Apply a GRANT or REVOKE. The comment goes with the first of its objects. Raises NotFoldable."""
    for grant in _by_object(source, tokens):
        if tokens[0].is_any("grant"):
            grant.comments, comments = comments, []
            schema.grants.append(grant)
        elif not _take(schema, grant):
            # It takes what PostgreSQL gives by default, such as EXECUTE from PUBLIC.
            name = f"{grant.text} {grant.roles}"
            text = f"REVOKE {', '.join(grant.privileges)} ON {grant.text} FROM {', '.join(grant.roles)}"
            schema.parts["revoke", name] = Part("revoke", name, grant.owner, text, comments)


def executed_grants(tokens: Sequence[Token]) -> Iterator[str]:
    """Each GRANT or REVOKE that a DO executes, with TENANT_ROLE for the role that format() puts in."""
    body = next((token.text for token in tokens if token.kind == "string"), "")
    inside = list(tokens_of(body))
    for at, token in enumerate(inside):
        if token.is_any("execute"):
            text = _string_after(inside[at + 1 :])
            if text.split()[:1] in (["GRANT"], ["REVOKE"]):
                yield text.replace("%I", TENANT_ROLE)


def forget_column(schema: Schema, table: str, column: str) -> None:
    """Take a dropped column out of the privileges on its table."""
    for grant in schema.grants:
        if grant.owner == table:
            grant.privileges = [left for one in grant.privileges if (left := _without_column(one, column))]
    schema.grants = [grant for grant in schema.grants if grant.privileges]


def _string_after(tokens: Sequence[Token]) -> str:
    """The string, in as many pieces as it is written, that follows `EXECUTE` or `EXECUTE format(`."""
    pieces = []
    for token in tokens:
        if token.kind == "string":
            pieces.append(token.text)
        elif pieces or not token.is_any("format", "("):
            break
    return "".join(pieces)


def _by_object(source: Source, tokens: Sequence[Token]) -> list[Grant]:
    """What a GRANT or REVOKE names, once for each object. Those of roles, options and ALL TABLES are not foldable."""
    on = _index(tokens, 0, "on")
    end = _index(tokens, on, "to", "from")
    if any(token.is_any("all", "option") for token in tokens[on:]) or tokens[1].is_any("grant", "admin"):
        raise NotFoldable
    privileges = [source.text(one) for one in split_by_commas(tokens[1:on])]
    objects = Reader(tokens[on + 1 : end])
    kind = objects.take_one_of(*_KINDS)
    prefix = "" if kind in ("", "table") else f"{kind.upper()} "
    roles = ["PUBLIC" if role == "public" else role for role in Reader(tokens[end + 1 :]).names()]
    return [
        Grant("grant", source.text(one), Reader(one).name(), prefix + source.text(one), [], list(privileges), roles)
        for one in split_by_commas(objects.rest)
    ]


def _index(tokens: Sequence[Token], start: int, *words: str) -> int:
    for at in range(start, len(tokens)):
        if tokens[at].is_any(*words):
            return at
    raise NotFoldable


def _take(schema: Schema, revoked: Grant) -> bool:
    """Take these privileges out of the grants. Whether any grant had them."""
    left = [one for grant in schema.grants for one in _left_of(grant, revoked)]
    is_same = [one.sql() for one in left] == [grant.sql() for grant in schema.grants]
    schema.grants = left
    return not is_same


def _left_of(grant: Grant, revoked: Grant) -> Iterator[Grant]:
    """A grant without what was revoked: for the roles that keep it as it was, for the others with fewer privileges."""
    keeping = [role for role in grant.roles if role not in revoked.roles]
    losing = [role for role in grant.roles if role in revoked.roles]
    if grant.text != revoked.text or not losing:
        yield grant
        return
    is_all = any(privilege.lower().startswith("all") for privilege in revoked.privileges)
    privileges = [one for one in grant.privileges if not is_all and one not in revoked.privileges]
    if keeping:
        yield Grant("grant", grant.name, grant.owner, grant.text, grant.comments, grant.privileges, keeping)
    if privileges:
        comments = [] if keeping else grant.comments
        yield Grant("grant", grant.name, grant.owner, grant.text, comments, privileges, losing)


def _without_column(privilege: str, column: str) -> str:
    """`UPDATE (a, b)` without b is `UPDATE (a)`, and without both it is nothing."""
    reader = Reader([*tokens_of(privilege)])
    if not reader.skip_past("("):
        return privilege
    columns = [one for one in reader.names() if one != column]
    return f"{privilege.partition('(')[0].strip()} ({', '.join(columns)})" if columns else ""
