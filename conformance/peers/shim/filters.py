"""The part of the filter language that a library's exact matches can answer: conditions that all hold.

`field = value` and `field:value`, joined by AND or white space. Everything else of docs/spec/filter.md is refused as
not implemented: a shim that filtered by itself what a library returned would hide what the library lacks.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from conformance.peers.shim.errors import Refusal, lacking

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<sign>!=|<=|>=|[=<>:()*.-])|(?P<word>[A-Za-z0-9_/@+-]+))"""
)
_STATES = {"ACTIVE", "MERGED", "ARCHIVED", "DELETED", "PURGED"}
_PLAIN = {"kind", "language", "media_type", "owner", "tags", "state"}
_OTHERS = {"labels", "attributes", "session", "sensitivity", "payload", "confidence", "revision", "name", "id"} | {
    *("create_time", "update_time", "valid_from", "valid_until", "provenance", "text")
}


class Condition(NamedTuple):
    """One exact match.

    Attributes:
        field: `tags`, `state`, `owner`, `kind`, `language`, `media_type`, `labels` or `attributes`.
        key: The label's key or the attribute's path, joined by dots; otherwise empty.
        value: What it must be, or hold.
    """

    field: str
    key: str
    value: str | int | float | bool


def parse(text: str) -> list[Condition]:
    """Returns the conditions of a filter.

    Raises:
        Refusal: It does not parse, or says what no exact match can answer.
    """
    tokens = _tokens(text)
    conditions: list[Condition] = []
    at = 0
    while at < len(tokens):
        if conditions and tokens[at] == ("word", "AND"):
            at += 1
        field = _take(tokens, at, "word")
        if field in ("NOT", "OR"):
            raise lacking(f"filters with {field} are not implemented", "filter")
        at += 1
        path = []
        while at < len(tokens) and tokens[at] == ("sign", "."):
            path.append(_take(tokens, at + 1, "word", "string"))
            at += 2
        operator = _take(tokens, at, "sign")
        if operator not in ("=", ":"):
            raise lacking(f"filters with {operator} are not implemented", "filter")
        kind = tokens[at + 1][0] if at + 1 < len(tokens) else ""
        value = _take(tokens, at + 1, "word", "string")
        conditions.append(_condition(field, path, operator, value, kind == "string"))
        at += 2
        if at < len(tokens) and tokens[at] == ("word", "OR"):
            raise lacking("filters with OR are not implemented", "filter")
    return conditions


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Refusal("INVALID_FILTER", "the filter does not parse", "filter", {"position": str(at + 1)})
        kind = str(match.lastgroup)
        word = match.group(kind)
        found.append((kind, re.sub(r"\\(.)", r"\1", word[1:-1]) if kind == "string" else word))
        at = match.end()
    return found


def _take(tokens: list[tuple[str, str]], at: int, *kinds: str) -> str:
    if at >= len(tokens):
        raise Refusal("INVALID_FILTER", "the filter ends too early", "filter")
    kind, word = tokens[at]
    if kind not in kinds:
        if word in ("*", "(", ")", "-"):
            raise lacking(f"filters with {word} are not implemented", "filter")
        raise Refusal("INVALID_FILTER", "the filter does not parse", "filter")
    return word


def _condition(field: str, path: list[str], operator: str, value: str, quoted: bool) -> Condition:
    if field == "labels" and len(path) == 1:
        return Condition(field, path[0], value)
    if field == "attributes" and path:
        return Condition(field, ".".join(path), value if quoted else _scalar(value))
    if field not in _PLAIN and field not in _OTHERS:
        raise Refusal("INVALID_FILTER", "there is no such field", "filter")
    if path or field not in _PLAIN:
        raise lacking(f"filters on {field} are not implemented", "filter")
    if field == "tags" and operator != ":":
        raise Refusal("INVALID_FILTER", "tags are compared with a colon", "filter")
    if field == "state" and (operator != "=" or value not in _STATES):
        raise Refusal("INVALID_FILTER", "there is no such state", "filter")
    return Condition(field, "", value)


def _scalar(word: str) -> str | int | float | bool:
    if word in ("true", "false"):
        return word == "true"
    try:
        return int(word)
    except ValueError:
        try:
            return float(word)
        except ValueError:
            return word
