"""JSON text as the contract admits it: RFC 8259 without duplicate keys, nested at most 32 deep; RFC 8785 on output."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import rfc8785

MAX_DEPTH: Final = 32
"""The deepest nesting of objects and arrays."""

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""The largest integer that RFC 8785 can represent exactly (IEEE 754 binary64)."""

# Possessive and with an optional end, so that a string without one is consumed once: linear time on any text.
_STRING_OR_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


class JsonTextError(ValueError):
    """The text is no JSON that the contract admits; the message says why and repeats nothing of the text."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise JsonTextError("an object repeats a key")
    return value


def _number(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise JsonTextError("a number is beyond the range of a double")
    return value


def _integer(digits: str) -> int | float:
    """Returns a large integer as a double where nothing is lost: it is one exactly, or RFC 8785 writes one like it."""
    if len(digits) <= 15:
        return int(digits)
    as_float = _number(digits)
    value = int(digits)
    if abs(value) > MAX_SAFE_INTEGER and (as_float == value or rfc8785.dumps(as_float) == digits.encode()):
        return as_float
    return value


def _constant(_: str) -> Any:
    raise JsonTextError("NaN and Infinity are not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_integer, parse_constant=_constant
)


def _check_depth(text: str) -> None:
    """Refuses deep nesting before the recursive decoder sees it."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        mark = found[0]
        if mark in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise JsonTextError(f"nested deeper than {MAX_DEPTH}")
        elif mark in ("]", "}"):
            depth -= 1


def parse(text: str) -> Any:
    """Returns the value of a JSON text.

    Raises:
        JsonTextError: It is malformed, repeats a key, nests deeper than 32, or holds a number beyond a double or a
            string that is no Unicode text.
    """
    _check_depth(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise JsonTextError(f"not JSON at character {error.pos}: {error.msg}") from error
    if "\\u" in text and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise JsonTextError("a string holds half of a surrogate pair")
    return value


def is_valid(text: str) -> bool:
    """Returns whether `parse` accepts the text."""
    try:
        parse(text)
    except JsonTextError:
        return False
    return True


def canonical(value: Any) -> str:
    """Returns the RFC 8785 (JSON Canonicalization Scheme) text of a value that `parse` returned.

    Raises:
        JsonTextError: An integer beyond plus or minus 2^53 - 1 is one that a double does not hold exactly.
    """
    try:
        return rfc8785.dumps(value).decode()
    except rfc8785.CanonicalizationError as error:
        raise JsonTextError("an integer beyond 2^53 - 1 is not exact as a double; send it as a string") from error
