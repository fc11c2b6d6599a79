"""Reads the text of a filter into a tree, within limits, and says where and why when it cannot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from memos_server.errors import FieldViolation, MipError

MAX_BYTES: Final = 4096
MAX_DEPTH: Final = 32
MAX_TERMS: Final = 100
"""Limits of a filter: bytes of its text, nesting of parentheses and NOT, restrictions in it."""

Operator = Literal["=", "!=", "<", "<=", ">", ">=", ":"]


def invalid_filter(description: str, position: int | None = None) -> MipError:
    """Returns the INVALID_FILTER error.

    Args:
        description: What is wrong and what was expected.
        position: Where, in characters from 0.
    """
    metadata = {} if position is None else {"position": str(position + 1)}
    where = "" if position is None else f"at character {position + 1}: "
    return MipError(
        "INVALID_FILTER",
        f"filter: {where}{description}",
        metadata=metadata,
        violations=[FieldViolation("filter", f"{where}{description}")],
    )


@dataclass(frozen=True, slots=True)
class Value:
    """What a field is compared with.

    Attributes:
        kind: How it was written: quoted `string`, `number`, `time`, a bare `word`, or `any` for `*`.
        text: Its text, unquoted.
        position: Where it begins, in characters from 0.
    """

    kind: Literal["string", "number", "time", "word", "any"]
    text: str
    position: int


@dataclass(frozen=True, slots=True)
class Restriction:
    """A comparison of one field; `path` is the field and what follows its dots."""

    path: tuple[str, ...]
    operator: Operator
    value: Value
    position: int


@dataclass(frozen=True, slots=True)
class AllOf:
    """True when all parts are."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when any part is."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Negated:
    """True when the part is not."""

    part: Node


Node = Restriction | AllOf | AnyOf | Negated

_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r"}
_VALUE_KINDS: Final[dict[str, Literal["string", "number", "time", "word"]]] = {
    "STRING": "string",
    "NUMBER": "number",
    "TIME": "time",
    "TEXT": "word",
}
_WORDS: Final = {
    "WORD": "a field",
    "MINUS": "NOT",
    "NOT": "NOT",
    "LPAR": "(",
    "RPAR": ")",
    "AND": "AND",
    "OR": "OR",
    "COMPARATOR": "one of = != < <= > >=",
    "HAS": ":",
    "DOT": ".",
    "STAR": "*",
    "STRING": "a value",
    "NUMBER": "a value",
    "TIME": "a value",
    "TEXT": "a value",
    "DIGITS": "a key",
    "$END": "the end",
}


@dataclass(frozen=True, slots=True)
class _Part:
    """A node while it is put together, with the size of what it holds."""

    node: Node
    depth: int
    terms: int


def _unquoted(token: Token) -> str:
    return _ESCAPE.sub(lambda found: _CONTROLS.get(found[1], found[1]), str(token)[1:-1])


def _start(token: Token) -> int:
    return token.start_pos or 0


class _Builder(Transformer[Token, _Part]):
    """Builds the tree while the parser reduces, so that nothing walks it recursively before its depth is known."""

    def path(self, tokens: list[Token]) -> tuple[tuple[str, ...], int]:
        segments = tuple(_unquoted(token) if token.type == "STRING" else str(token) for token in tokens)
        return segments, _start(tokens[0])

    def value(self, tokens: list[Token]) -> Value:
        token = tokens[0]
        text = _unquoted(token) if token.type == "STRING" else str(token)
        return Value(_VALUE_KINDS[token.type], text, _start(token))

    def restriction(self, parts: list[Any]) -> _Part:
        (path, position), operator, value = parts
        return _Part(Restriction(path, str(operator), value, position), 0, 1)  # type: ignore[arg-type]

    def has(self, parts: list[Any]) -> _Part:
        (path, position), _, value = parts
        if isinstance(value, Token):
            value = Value("any", "*", _start(value))
        return _Part(Restriction(path, ":", value, position), 0, 1)

    def nested(self, parts: list[_Part]) -> _Part:
        return self._checked(parts[0].node, parts[0].depth + 1, parts[0].terms)

    def negated(self, parts: list[Any]) -> _Part:
        inner: _Part = parts[-1]
        return self._checked(Negated(inner.node), inner.depth + 1, inner.terms)

    def all_of(self, parts: list[_Part]) -> _Part:
        return self._joined(AllOf, parts)

    def any_of(self, parts: list[_Part]) -> _Part:
        return self._joined(AnyOf, parts)

    def _joined(self, kind: type[AllOf] | type[AnyOf], parts: list[_Part]) -> _Part:
        if len(parts) == 1:
            return parts[0]
        nodes: list[Node] = []
        for part in parts:
            nodes.extend(part.node.parts if isinstance(part.node, kind) else [part.node])
        return self._checked(kind(tuple(nodes)), max(part.depth for part in parts), sum(part.terms for part in parts))

    def _checked(self, node: Node, depth: int, terms: int) -> _Part:
        if depth > MAX_DEPTH:
            raise invalid_filter(f"nests deeper than {MAX_DEPTH}")
        if terms > MAX_TERMS:
            raise invalid_filter(f"has more than {MAX_TERMS} terms")
        return _Part(node, depth, terms)


@cache
def _parser() -> Lark:
    grammar = resources.files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder(), maybe_placeholders=True)


def read(text: str) -> Node | None:
    """Returns the tree of a filter; None for an empty one.

    Args:
        text: The filter, at most 4,096 bytes of UTF-8, 32 levels and 100 terms.

    Raises:
        MipError: INVALID_FILTER with the position and what was expected there.
    """
    if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
        raise invalid_filter(f"is longer than {MAX_BYTES} bytes")
    try:
        # With an embedded transformer, the parser returns what the transformer made of the start rule.
        part: Any = _parser().parse(text)
    except VisitError as error:
        if isinstance(error.orig_exc, MipError):
            raise error.orig_exc from None
        raise
    except UnexpectedInput as error:
        raise _unexpected(error, text) from error
    return part.node if isinstance(part, _Part) else None


def _unexpected(error: UnexpectedInput, text: str) -> MipError:
    if isinstance(error, UnexpectedToken):
        expected = error.accepts or error.expected
        position = len(text) if error.token.type == "$END" else _start(error.token)
    elif isinstance(error, UnexpectedCharacters):
        expected = error.allowed or set()
        position = error.pos_in_stream or 0
    else:
        expected, position = set(), len(text)
    words = list(dict.fromkeys(word for name, word in _WORDS.items() if name in expected))
    hint = f"expected {', '.join(words)}" if words else "cannot be read"
    if position >= len(text):
        return invalid_filter(f"ends too early; {hint}", len(text))
    if text[position] in "\"'":
        return invalid_filter(f"{hint}, or the string does not end", position)
    return invalid_filter(hint, position)
