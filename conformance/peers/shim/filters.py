"""The filter language of docs/spec/filter.md, parsed, so that a shim can say it in the words of its library.

What a library has no words for is refused as not implemented: a shim that filtered by itself what a library returned
would hide what the library lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from conformance.peers.shim.errors import Refusal

_MAX_COMPARISONS, _MAX_DEPTH = 100, 32
_STRING = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", re.DOTALL)
_TEXT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+-]*")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d))?(?![A-Za-z0-9_./+@-])", re.ASCII
)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![A-Za-z0-9_./@-])", re.ASCII)
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_OPERATOR = re.compile(r"!=|<=|>=|[=<>:]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\"}

_OPERATORS = {
    **dict.fromkeys(("create_time", "update_time", "valid_from", "valid_until", "confidence", "attributes"), ""),
    **dict.fromkeys(("session", "owner", "kind", "language", "media_type", "payload", "name", "id"), "= != :"),
    **dict.fromkeys(("labels", "provenance"), "= != :"),
    **dict.fromkeys(("sensitivity", "revision"), "= != < <= > >="),
    **{"state": "= !=", "tags": ":", "text": ":"},
}
"""The operators of each field; empty means all."""
_WORDS = {
    "state": {"ACTIVE", "MERGED", "ARCHIVED", "DELETED", "PURGED"},
    "sensitivity": {"PUBLIC", "INTERNAL", "CONFIDENTIAL", "SECRET"},
    "payload": {"plaintext", "activation", "parametric", "extension"},
    "provenance.kind": {"MESSAGE", "DOCUMENT", "MEMORY", "TOOL", "IMPORT"},
}
TIMES = ("create_time", "update_time", "valid_from", "valid_until")

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Condition:
    """One comparison.

    Attributes:
        field: The field, such as `tags`, `labels`, `attributes`, `provenance`.
        key: The label's key, the attribute's path or the provenance's field, joined by dots; otherwise empty.
        operator: `=`, `!=`, `<`, `<=`, `>`, `>=`, `:`, or `:*` for a field that is present.
        value: What it is compared with.
    """

    field: str
    key: str
    operator: str
    value: Value


@dataclass(frozen=True)
class Group:
    """Several filters, all or any of which must be true, or the one that must not."""

    kind: Literal["all", "any", "not"]
    parts: tuple[Filter, ...]


Filter = Condition | Group


def parse(text: str) -> Filter:
    """Returns what a filter says; the empty one is a group of all of nothing.

    Raises:
        Refusal: INVALID_FILTER.
    """
    parser = _Parser(text)
    return parser.whole() if text.strip() else Group("all", ())


def conditions(of: Filter) -> Iterator[Condition]:
    """Yields all comparisons of a filter."""
    if isinstance(of, Condition):
        yield of
    else:
        for part in of.parts:
            yield from conditions(part)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._comparisons = 0

    def whole(self) -> Filter:
        found = self._expression(0)
        if not self._ended():
            raise self._error("does not parse")
        return found

    def _error(self, what: str) -> Refusal:
        return Refusal("INVALID_FILTER", f"the filter {what}", "filter", {"position": str(self._at + 1)})

    def _ended(self) -> bool:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._at == len(self._text)

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        self._ended()
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match.group()

    def _word(self, word: str) -> bool:
        return self._take(re.compile(rf"{word}(?=[\s(])")) is not None

    def _sign(self, sign: str) -> bool:
        return self._take(re.compile(re.escape(sign))) is not None

    def _expression(self, depth: int) -> Filter:
        if depth > _MAX_DEPTH:
            raise self._error("is nested too deep")
        parts = list(self._sequence(depth))
        while self._word("AND"):
            parts.extend(self._sequence(depth))
        return parts[0] if len(parts) == 1 else Group("all", tuple(parts))

    def _sequence(self, depth: int) -> Iterator[Filter]:
        while True:
            terms = [self._term(depth)]
            while self._word("OR"):
                terms.append(self._term(depth))
            yield terms[0] if len(terms) == 1 else Group("any", tuple(terms))
            if self._ended() or self._text[self._at] == ")" or re.match(r"AND[\s(]", self._text[self._at :]):
                return

    def _term(self, depth: int) -> Filter:
        if self._word("NOT") or self._sign("-"):
            if depth >= _MAX_DEPTH:
                raise self._error("is nested too deep")
            return Group("not", (self._term(depth + 1),))
        if self._sign("("):
            found = self._expression(depth + 1)
            if not self._sign(")"):
                raise self._error("lacks a closing parenthesis")
            return found
        return self._comparison()

    def _comparison(self) -> Condition:
        self._comparisons += 1
        if self._comparisons > _MAX_COMPARISONS:
            raise self._error("has too many comparisons")
        field = self._take(_KEY)
        if field is None or field not in _OPERATORS:
            raise self._error("names a field that does not exist")
        path = []
        while self._at < len(self._text) and self._text[self._at] == ".":
            self._at += 1
            key = self._string() or self._take(_KEY)
            if key is None:
                raise self._error("does not parse")
            path.append(key)
        operator = self._take(_OPERATOR)
        if operator is None or (_OPERATORS[field] and operator not in _OPERATORS[field].split()):
            raise self._error("compares a field as it cannot be compared")
        if operator == ":" and self._sign("*"):
            return self._checked(Condition(field, ".".join(path), ":*", None), path)
        quoted = self._string()
        value: Value = quoted
        if quoted is None:
            bare = self._take(_TIME) or self._take(_NUMBER) or self._take(_TEXT)
            if bare is None:
                raise self._error("does not parse")
            value = _scalar(bare) if field in ("attributes", "confidence", "revision") else bare
        return self._checked(Condition(field, ".".join(path), operator, value), path)

    def _string(self) -> str | None:
        text = self._take(_STRING)
        return None if text is None else re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1])

    def _checked(self, condition: Condition, path: list[str]) -> Condition:
        field, value = condition.field, condition.value
        long = f"{field}.{condition.key}" if field == "provenance" else field
        wanted = {"attributes": path, "labels": len(path) == 1 or (not path and condition.operator == ":")}
        wanted["provenance"] = long in ("provenance.kind", "provenance.source", "provenance.speaker")
        if not wanted.get(field, not path):
            raise self._error("names a field that does not exist")
        if condition.operator == ":*":
            return condition
        if long in _WORDS and value not in _WORDS[long]:
            raise self._error("has a value that the field cannot have")
        if field in ("confidence", "revision") and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise self._error("compares a number with something else")
        if field in TIMES:
            try:
                datetime.fromisoformat(str(value).upper())
            except ValueError:
                raise self._error("has a time that is none") from None
        return condition


def _scalar(word: str) -> Value:
    if word in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[word]
    if _NUMBER.fullmatch(word) is None:
        return word
    return int(word) if re.fullmatch(r"[+-]?\d+", word) else float(word)
