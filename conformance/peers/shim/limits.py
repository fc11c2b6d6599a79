"""Checks of a request against the limits that the contract declares on its fields, before anything is done."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from google.protobuf import unknown_fields
from google.protobuf.message import Message

from conformance.peers.shim import contract
from conformance.peers.shim.errors import Refusal

_ID = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_GRAMMARS = {
    "FORMAT_ID": _ID,
    "FORMAT_CUBE_NAME": f"cubes/{_ID}",
    "FORMAT_MEMORY_NAME": f"cubes/{_ID}/memories/{_ID}",
    "FORMAT_SESSION_NAME": f"cubes/{_ID}/sessions/{_ID}",
    "FORMAT_JOB_NAME": f"cubes/{_ID}/jobs/{_ID}",
    "FORMAT_COMMIT_NAME": f"cubes/{_ID}/commits/[1-9][0-9]{{0,18}}",
    "FORMAT_PRINCIPAL_NAME": f"principals/{_ID}",
    "FORMAT_GRANT_RESOURCE": f"server|cubes/{_ID}(?:/memories/{_ID})?",
    "FORMAT_UUID": "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "FORMAT_BLOB_DIGEST": "sha256:[0-9a-f]{64}",
    "FORMAT_RELATION_TYPE": "[A-Z][A-Z0-9_]{0,63}",
    "FORMAT_LABEL_KEY": "[A-Za-z][A-Za-z0-9._/-]{0,127}",
}
_NAMES = {name for name in _GRAMMARS if name.endswith(("_ID", "_NAME", "_RESOURCE"))}
_JSON_DEPTH = 32


@cache
def _grammar(name: str) -> re.Pattern[str]:
    return re.compile(_GRAMMARS[name], re.ASCII)


def check(message: Message, path: str = "") -> None:
    """Checks a message and all messages in it.

    Args:
        message: The request.
        path: Where it stands, ending in a dot; empty for the request itself.

    Raises:
        Refusal: The first violation, with the field's path.
    """
    declared = contract.limits(message.DESCRIPTOR.full_name)
    for field in message.DESCRIPTOR.fields:
        where = path + field.name
        value = getattr(message, field.name)
        if field.name in declared:
            _check_field(message, field, value, declared[field.name], where)
        if field.message_type is None or field.message_type.full_name.startswith("google.protobuf."):
            continue
        if contract.is_list(field):
            for number, item in enumerate(value):
                check(item, f"{where}[{number}].")
        elif message.HasField(field.name):
            check(value, f"{where}.")


def _check_field(message: Message, field: Any, value: Any, limit: Any, where: str) -> None:
    several = contract.is_list(field)
    if limit.required and not (message.HasField(field.name) if field.has_presence else value):
        raise Refusal("FIELD_REQUIRED", f"{where} must be set", where)
    if several and limit.max_items and len(value) > limit.max_items:
        raise Refusal("TOO_MANY_ITEMS", f"{where} may have {limit.max_items} elements", where)
    if limit.non_negative and isinstance(value, int | float) and value < 0:
        raise Refusal("INVALID_FIELD", f"{where} may not be below zero", where)
    if field.message_type is not None:
        return
    grammar = contract.enum_name("Format", limit.format) if limit.format else ""
    for number, item in enumerate(value if several else [value]):
        _check_text(item, limit.max_bytes, grammar, f"{where}[{number}]" if several else where)


def _check_text(item: Any, max_bytes: int, grammar: str, where: str) -> None:
    size = len(item.encode() if isinstance(item, str) else item) if isinstance(item, str | bytes) else 0
    if max_bytes and size > max_bytes:
        raise Refusal("FIELD_TOO_LARGE", f"{where} may have {max_bytes} bytes", where)
    if not grammar or not item:
        return
    if grammar == "FORMAT_JSON":
        json_value(item, where)
    elif not _grammar(grammar).fullmatch(item):
        reason = "INVALID_NAME" if grammar in _NAMES else "INVALID_FIELD"
        raise Refusal(reason, f"{where} does not follow its grammar", where)
    elif grammar == "FORMAT_COMMIT_NAME" and int(item.rsplit("/", 1)[1]) >= 2**63:
        raise Refusal("INVALID_NAME", f"{where} does not follow its grammar", where)


def json_value(text: str, where: str) -> Any:
    """Returns what a JSON text says, read as strictly as docs/spec/names.md asks.

    Raises:
        Refusal: It is no such text.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key is repeated")
        return found

    def refused(text: str) -> Any:
        raise ValueError(f"{text} is no JSON")

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refused, parse_int=_whole)
        _check_json(value, 0)
    except (ValueError, OverflowError, RecursionError) as error:
        raise Refusal("INVALID_JSON", f"{where} is no valid JSON", where) from error
    return value


def _whole(text: str) -> int | float:
    """Returns a whole number, as a double where RFC 8785 writes it as one."""
    value = int(text)
    if abs(value) <= 2**53 - 1:
        return value
    if int(float(value)) != value:
        raise ValueError("a number that a double cannot hold")
    return float(value)


def _check_json(value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth >= _JSON_DEPTH:
            raise ValueError("nested too deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check_json(item, depth + 1)
        if isinstance(value, dict):
            for key in value:
                key.encode()
    elif isinstance(value, str):
        value.encode()
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise ValueError("a number out of range")


def refuse_unknown_fields(message: Message, path: str) -> None:
    """Refuses fields that the contract does not have: the libraries keep plain values, not bytes.

    Raises:
        Refusal: There is one in the message or in a message in it.
    """
    if len(unknown_fields.UnknownFieldSet(message)):
        raise Refusal("INVALID_FIELD", f"{path} has a field that this server does not know", path)
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for number, item in enumerate(value) if contract.is_list(field) else [(-1, value)]:
            refuse_unknown_fields(item, f"{path}.{field.name}" + (f"[{number}]" if number >= 0 else ""))
