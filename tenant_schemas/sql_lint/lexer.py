"""Splits SQL into statements and tokens where PostgreSQL's scanner and psql split it. It knows no grammar."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""
    (?P<space> \s+ )
    | (?P<comment> --[^\n]* )
    | (?P<block> /\* )
    | (?P<string> [eE]'(?:[^'\\]|''|\\.)*' | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*' )
    | (?P<dollars> \$(?P<tag>(?:[^\W\d]\w*)?)\$(?P<body>.*?)\$(?P=tag)\$ )
    | (?P<name> (?:[uU]&)?"(?:[^"]|"")*" )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<number> \d[\w.]* )
    | (?P<symbol> . )""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_SUMMARY_LENGTH: Final = 120


@dataclass(frozen=True, slots=True)
class Token:
    """One token; sql[start:end] is its source text. Its kind is `word` (in lower case), `name` (quoted, as written),
    `string` (without its quotes), `number`, `symbol` (one character) or `comment`.
    """

    kind: str
    text: str
    start: int
    end: int

    def is_any(self, *texts: str) -> bool:
        """Whether it is one of these words or symbols. A string or a quoted name never is."""
        return self.kind in ("word", "symbol") and self.text in texts


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement without its semicolon."""

    tokens: tuple[Token, ...]
    text: str

    @property
    def summary(self) -> str:
        """The statement on one line, shortened for messages."""
        line = " ".join(self.text.split())
        return line if len(line) <= _SUMMARY_LENGTH else line[: _SUMMARY_LENGTH - 2] + " …"


def statements_of(sql: str) -> tuple[Statement, ...]:
    """The statements of a text, without empty ones."""
    found = []
    tokens: list[Token] = []
    for token in tokens_of(sql):
        if token.is_any(";") and _is_complete(tokens):
            found.append(_statement(sql, tokens, token.start))
            tokens = []
        else:
            tokens.append(token)
    found.append(_statement(sql, tokens, len(sql)))
    return tuple(statement for statement in found if statement.tokens)


def tokens_of(sql: str) -> Iterator[Token]:
    """All tokens except space and comments."""
    return (token for token in _scan(sql) if token.kind != "comment")


def comments_of(sql: str) -> Iterator[Token]:
    """All comments, of both kinds, except those inside strings, for instance in a function's body."""
    return (token for token in _scan(sql) if token.kind == "comment")


def split_by_commas(tokens: Sequence[Token]) -> list[list[Token]]:
    """The parts between the commas outside of brackets."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += token.is_any("(", "[") - token.is_any(")", "]")
        if depth == 0 and token.is_any(","):
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _scan(sql: str) -> Iterator[Token]:
    position = 0
    while match := _TOKEN.match(sql, position):
        start, position = match.span()
        kind, text = match.lastgroup or "", match[0]
        if kind == "block":
            position = _end_of_block(sql, position)
            kind, text = "comment", sql[start:position]
        elif kind == "dollars":
            kind, text = "string", match["body"]
        elif kind == "string":
            text = text[text.index("'") + 1 : -1].replace("''", "'")
        elif kind == "word":
            text = text.lower()
        if kind != "space":
            yield Token(kind, text, start, position)


def _end_of_block(sql: str, position: int) -> int:
    """The end of a block comment; PostgreSQL allows comments inside comments."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, position)
        if edge is None:
            return len(sql)
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position


def _is_complete(tokens: Sequence[Token]) -> bool:
    """Whether a semicolon ends the statement here. In brackets or in BEGIN ATOMIC … END of a function it does not."""
    if sum(token.is_any("(") - token.is_any(")") for token in tokens) > 0:
        return False
    heads = [token.text for token in tokens[:4]]
    if heads[:1] != ["create"] or not {"function", "procedure"} & set(heads):
        return True
    depth = 0
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        opens = token.is_any("begin") and following is not None and following.is_any("atomic")
        if opens or (depth and token.is_any("case")):
            depth += 1
        elif depth and token.is_any("end"):
            depth -= 1
    return depth == 0


def _statement(sql: str, tokens: Sequence[Token], end: int) -> Statement:
    return Statement(tuple(tokens), sql[tokens[0].start : end].strip() if tokens else "")


class Reader:
    """Reads tokens from left to right."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._position = 0

    @property
    def rest(self) -> Sequence[Token]:
        return self._tokens[self._position :]

    def take(self, *texts: str) -> bool:
        """Skip these words or symbols if they come next, in this order; return whether they did."""
        ahead = self.rest[: len(texts)]
        found = len(ahead) == len(texts) and all(token.is_any(text) for token, text in zip(ahead, texts, strict=True))
        if found:
            self._position += len(texts)
        return found

    def skip(self, *texts: str) -> None:
        """Skip any number of these words or symbols, in any order."""
        while self.take_one_of(*texts):
            pass

    def take_one_of(self, *texts: str) -> str:
        """Skip and return the next word or symbol if it is one of these; otherwise return an empty string."""
        return next((text for text in texts if self.take(text)), "")

    def skip_past(self, *texts: str) -> bool:
        """Skip to the end of the next occurrence of this sequence; return whether there is one."""
        while self.rest:
            if self.take(*texts):
                return True
            self._position += 1
        return False

    def word(self) -> str:
        """Skip and return the next token of any kind; an empty string at the end."""
        self._position += 1
        return self._tokens[self._position - 1].text if self._position <= len(self._tokens) else ""

    def name(self) -> str:
        """Skip and return the next name, with its schema if written, quoted only if needed; empty if there is none."""
        parts = []
        while self.rest and self.rest[0].kind in ("word", "name"):
            parts.append(_unquoted(self.word()))
            if not self.take("."):
                break
        return ".".join(parts)

    def names(self) -> list[str]:
        """Skip and return a list of names separated by commas."""
        found = [self.name()]
        while self.take(","):
            self.skip("only")
            found.append(self.name())
        return [name for name in found if name]


def _unquoted(name: str) -> str:
    return name[1:-1] if re.fullmatch(r'"[a-z_][a-z0-9_$]*"', name) else name
