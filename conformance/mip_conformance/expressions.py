"""Expressions in cases: CEL with functions of this suite, and texts that hold such expressions."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import re
import struct
import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cel

from mip_conformance.contract import message_class
from mip_conformance.values import jsonable, message_of, nanoseconds, plain

Variables = Mapping[str, Any]
_OPEN = "${"
_LENGTH_DELIMITED = 2
_FIXED = {1: 8, 5: 4}
"""Bytes of the wire types of fixed length."""


class ExpressionError(Exception):
    """An expression that cannot be evaluated: a mistake of the case, or an answer that lacks what it names."""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _fields(data: bytes) -> list[tuple[int, Any]]:
    """Returns the fields of a message as they stand on the wire: number, and the bytes of a length-delimited one.

    Raises:
        ValueError: The bytes are no message.
    """
    found: list[tuple[int, Any]] = []
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        value: Any = None
        if key & 7 == 0:
            value, at = _read_varint(data, at)
        elif key & 7 == _LENGTH_DELIMITED:
            length, at = _read_varint(data, at)
            value, at = data[at : at + length], at + length
        elif key & 7 in _FIXED:
            at += _FIXED[key & 7]
            value = data[at - _FIXED[key & 7] : at]
        else:
            raise ValueError(f"wire type {key & 7}")
        found.append((key >> 3, value))
    if at != len(data):
        raise ValueError("the last field is cut off")
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("a number is cut off")
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return number, at


def _field_numbers(data: bytes) -> list[int]:
    return [number for number, _ in _fields(data)]


def _field_values(data: bytes, number: int) -> list[Any]:
    return [value for one, value in _fields(data) if one == number]


def _floats(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def _sorted(items: list[Any]) -> list[Any]:
    return sorted(items)


def _distinct(items: list[Any]) -> list[Any]:
    seen: list[Any] = []
    known: set[str] = set()
    for item in items:
        key = json.dumps(jsonable(item), sort_keys=True)
        if key not in known:
            known.add(key)
            seen.append(item)
    return seen


def _parse(name: str, data: bytes) -> dict[str, Any]:
    return plain(message_class(name).FromString(data))


def _wire(name: str, fields: dict[str, Any]) -> bytes:
    return message_of(message_class(name), fields).SerializeToString(deterministic=True)


def _moved(message: Any, path: str, old: str, new: str) -> Any:
    """Returns a message in which the text at a path has `old` replaced by `new`.

    The path is that of a field, such as `memory.name`, `names[0]`, `relations[1].source`. `[+]` stands for a new last
    element of a list: a copy of the one that was last.
    """
    return _moved_at(message, path.replace("[", ".[").split("."), old, new)


def _moved_at(message: Any, steps: list[str], old: str, new: str) -> Any:
    if not steps:
        if not isinstance(message, str) or old not in message:
            raise ExpressionError(f"moved: {message!r} does not hold {old!r}")
        return message.replace(old, new)
    step, rest = steps[0], steps[1:]
    if not step.startswith("["):
        return {**message, step: _moved_at(message[step], rest, old, new)}
    place = step[1:-1]
    items = [*message, message[-1]] if place == "+" else list(message)
    at = len(items) - 1 if place == "+" else int(place)
    items[at] = _moved_at(items[at], rest, old, new)
    return items


def _base64url(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _sha256(data: bytes | str) -> bytes:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).digest()


def as_text(value: Any) -> str:
    """Returns a value as JSON. Keys are sorted: the maps of expressions have another order in each process."""
    return json.dumps(jsonable(value), ensure_ascii=False, sort_keys=True)


FUNCTIONS: dict[str, Any] = {
    # Bytes.
    "sha256": _sha256,
    "changes_digest": lambda changes: _sha256(b"".join(map(_sha256, changes))),
    "hex": lambda data: data.hex(),
    "unhex": bytes.fromhex,
    "base64": lambda data: base64.b64encode(data).decode(),
    "base64url": _base64url,
    "unbase64url": lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)),
    "hmac_sha256": lambda key, data: hmac.digest(key, data.encode() if isinstance(data, str) else data, "sha256"),
    "joined": lambda parts: b"".join(parts),
    "zeros": lambda count: bytes(count),
    "slice": lambda value, low, high: value[low:high],
    "floats": _floats,
    # Messages: to and from the wire, and fields that a message class does not have.
    "wire": _wire,
    "parse": _parse,
    "field": _field,
    "field_numbers": _field_numbers,
    "field_values": _field_values,
    # Lists and texts.
    "nanoseconds": nanoseconds,
    "sorted": _sorted,
    "distinct": _distinct,
    "flatten": lambda lists: [item for items in lists for item in items],
    "range": lambda count: list(range(count)),
    "sum": sum,
    "pairs": lambda items: [list(pair) for pair in itertools.pairwise(items)],
    "zipped": lambda one, other: [list(pair) for pair in zip(one, other, strict=True)],
    "reversed": lambda items: items[::-1],
    "repeated": lambda text, count: text * count,
    "joined_text": lambda parts, between: between.join(parts),
    "split": lambda text, between: text.split(between),
    "replaced": lambda text, old, new: text.replace(old, new),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "json": json.loads,
    "to_json": lambda value: as_text(value),
    "merged": lambda one, other: {**one, **other},
    "moved": _moved,
    # Ids.
    "uuid": lambda: str(uuid.uuid4()),
}


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> Any:
    try:
        return cel.compile(expression)
    except Exception as error:
        raise ExpressionError(f"{expression}: {error}") from None


def evaluate(expression: str, variables: Variables, functions: Mapping[str, Any] | None = None) -> Any:
    """Returns the value of an expression.

    Args:
        expression: CEL.
        variables: What it sees.
        functions: Functions beside FUNCTIONS.

    Raises:
        ExpressionError: It does not parse, or names what is not there.
    """
    context = cel.Context()
    known = {**FUNCTIONS, **functions} if functions else FUNCTIONS
    for name in _names(expression):
        if name in known:
            context.add_function(name, known[name])
        if name in variables:
            context.add_variable(name, variables[name])
    try:
        return _compiled(expression).execute(context)
    except ExpressionError:
        raise
    except Exception as error:
        raise ExpressionError(f"{expression}: {type(error).__name__}: {error}") from None


@lru_cache(maxsize=4096)
def _names(expression: str) -> frozenset[str]:
    """Returns the words of an expression: of functions and variables, only those that it may name are handed to it."""
    return frozenset(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", expression))


@lru_cache(maxsize=4096)
def _pieces(text: str) -> tuple[tuple[bool, str], ...]:
    """Splits a template into (is an expression, text)."""
    found: list[tuple[bool, str]] = []
    at = 0
    while (begin := text.find(_OPEN, at)) >= 0:
        if begin > at:
            found.append((False, text[at:begin]))
        end = _end_of(text, begin + len(_OPEN))
        found.append((True, text[begin + len(_OPEN) : end]))
        at = end + 1
    if at < len(text) or not found:
        found.append((False, text[at:]))
    return tuple(found)


def _end_of(text: str, at: int) -> int:
    depth, quote = 0, ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    raise ExpressionError(f"{text}: an expression does not end")


def filled(template: Any, variables: Variables, functions: Mapping[str, Any] | None = None) -> Any:
    """Returns a value with the expressions in its texts replaced by their values.

    A key that ends in `?` is left out where its value is null.
    """
    if isinstance(template, str):
        pieces = _pieces(template)
        if len(pieces) == 1:
            is_expression, text = pieces[0]
            return evaluate(text, variables, functions) if is_expression else text
        parts = [evaluate(text, variables, functions) if is_expression else text for is_expression, text in pieces]
        return "".join(part if isinstance(part, str) else as_text(part) for part in parts)
    if isinstance(template, dict):
        out = {}
        for key, value in template.items():
            made = filled(value, variables, functions)
            if key.endswith("?"):
                if made is None:
                    continue
                key = key[:-1]
            out[key] = made
        return out
    if isinstance(template, list):
        return [filled(item, variables, functions) for item in template]
    return template
