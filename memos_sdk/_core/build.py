"""Building of requests: memories from what people pass, update masks, batches within the limits."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from memos_sdk._core.names import child_name, principal_name
from memos_sdk._gen.google.protobuf import FieldMask
from memos_sdk._gen.mip import v1 as mip
from memos_sdk.errors import UsageError
from memos_sdk.models import Memory, Session

# A slice stays well below the 4 MiB that gRPC servers accept unless told otherwise.
MAX_SLICE_MEMORIES = 500
MAX_SLICE_BYTES = 2_500_000

MemoryLike: TypeAlias = str | Mapping[str, Any] | Memory
NameLike: TypeAlias = str | Memory


class Unset:
    """The type of UNSET, which stands for an argument that was not given; None is a value of its own: cleared."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


def memory_name(cube: str, value: NameLike) -> str:
    """Returns the full name of a memory of a cube."""
    return child_name(cube, "memories", value.name if isinstance(value, Memory) else value)


def session_name(cube: str, value: str | Session) -> str:
    """Returns the full name of a session of a cube; empty stays empty."""
    name = value.name if isinstance(value, Session) else value
    return child_name(cube, "sessions", name) if name else ""


def new_memory(cube: str, value: MemoryLike, **fields: Any) -> mip.Memory:
    """Makes the message of a memory to add.

    Args:
        cube: The cube's name.
        value: The text, a mapping with `text` and further fields, or a Memory whose content is taken over.
        **fields: Fields of `Memory.new`, and `id`; they win over those of a mapping.

    Raises:
        UsageError: A field is unknown or has the wrong type.
    """
    given = {key: item for key, item in fields.items() if item is not None and item != ()}
    if isinstance(value, Memory):
        message = value._content_copy()
        if given:
            message = _merge(message, cube, given)
        return message
    if isinstance(value, Mapping):
        given = {**value, **given}
    elif isinstance(value, str):
        given["text"] = value
    else:
        raise UsageError(
            f"a memory is a str, a mapping or a Memory, not {type(value).__name__}",
            reason="INVALID_FIELD",
            remedy='Pass the text, or a mapping such as {"text": "…", "tags": ["…"]}.',
        )
    return _merge(mip.Memory(), cube, given)


def _merge(message: mip.Memory, cube: str, fields: Mapping[str, Any]) -> mip.Memory:
    """Sets fields of a memory, with the names that `Cube.add` documents."""
    plain = {key: fields[key] for key in ("text", "kind", "media_type", "language") if fields.get(key) is not None}
    if plain:
        if message.plaintext is None:
            message.activation = message.parametric = message.extension = None
            message.plaintext = mip.Plaintext()
        for key, item in plain.items():
            setattr(message.plaintext, key, item)
    for key, item in fields.items():
        if key in ("text", "kind", "media_type", "language"):
            continue
        if key == "id":
            message.name = child_name(cube, "memories", item) if item else ""
        elif key in _SETTERS:
            _SETTERS[key](message, cube, item)
        else:
            known = ", ".join(["text", "kind", "media_type", "language", "id", *_SETTERS])
            raise UsageError(
                f"a memory has no field {key!r}", reason="INVALID_FIELD", remedy=f"The fields are: {known}."
            )
    return message


def _set_payload(name: str) -> Any:
    def setter(message: mip.Memory, cube: str, value: Any) -> None:
        message.plaintext = message.activation = message.parametric = message.extension = None
        setattr(message, name, value)

    return setter


def _set_plain(name: str) -> Any:
    def setter(message: mip.Memory, cube: str, value: Any) -> None:
        setattr(message, name, value)

    return setter


_SETTERS: dict[str, Any] = {
    "tags": lambda message, cube, value: setattr(message, "tags", tags_of(value)),
    "labels": lambda message, cube, value: setattr(message, "labels", labels_of(value)),
    "attributes": lambda message, cube, value: setattr(message, "attributes_json", attributes_of(value)),
    "provenance": lambda message, cube, value: setattr(message, "provenance", provenance_of(value)),
    "session": lambda message, cube, value: setattr(message, "session", session_name(cube, value or "")),
    "owner": lambda message, cube, value: setattr(message, "owner", principal_name(value) if value else ""),
    "sensitivity": lambda message, cube, value: setattr(message, "sensitivity", sensitivity_of(value)),
    "vectors": lambda message, cube, value: setattr(message, "vectors", list(value or ())),
    "valid_from": _set_plain("valid_from"),
    "valid_until": _set_plain("valid_until"),
    "confidence": lambda message, cube, value: setattr(message, "confidence", None if value is None else float(value)),
    "activation": _set_payload("activation"),
    "parametric": _set_payload("parametric"),
    "extension": _set_payload("extension"),
}

# The name of the update mask's path where it is not the argument's.
_PATHS = {
    "text": "plaintext.text",
    "kind": "plaintext.kind",
    "media_type": "plaintext.media_type",
    "language": "plaintext.language",
    "attributes": "attributes_json",
}


def update(cube: str, name: NameLike, etag: str, fields: Mapping[str, Any]) -> tuple[mip.Memory, FieldMask]:
    """Makes the message and the mask of an update: the fields that are not UNSET; None clears one.

    Raises:
        UsageError: Nothing is to be changed.
    """
    given = {key: value for key, value in fields.items() if not isinstance(value, Unset)}
    if not given:
        raise UsageError("nothing to update", reason="FIELD_REQUIRED", remedy="Pass the fields that change.")
    set_fields = {key: value for key, value in given.items() if value is not None}
    message = _merge(mip.Memory(), cube, set_fields)
    message.name = memory_name(cube, name)
    message.etag = etag
    return message, FieldMask(paths=[_PATHS.get(key, key) for key in given])


def tags_of(value: Iterable[str] | str | None) -> list[str]:
    """Returns a list of tags; one string is one tag, not its letters."""
    return [value] if isinstance(value, str) else list(value or ())


def labels_of(value: Mapping[str, str] | Iterable[mip.Label] | None) -> list[mip.Label]:
    """Returns labels sorted by key."""
    if isinstance(value, Mapping):
        return [mip.Label(key=key, value=str(item)) for key, item in sorted(value.items())]
    return list(value or ())


def attributes_of(value: Mapping[str, Any] | str | None) -> str:
    """Returns the JSON text of attributes; a string is taken as JSON text already."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the attributes are not JSON: {error}", reason="INVALID_JSON", remedy="Use JSON's types only, without NaN."
        ) from None


def provenance_of(value: Any) -> list[mip.Provenance]:
    """Returns provenance entries from messages, mappings of their fields, or one of either."""
    if value is None:
        return []
    entries = [value] if isinstance(value, mip.Provenance | Mapping) else list(value)
    try:
        return [entry if isinstance(entry, mip.Provenance) else _provenance_entry(entry) for entry in entries]
    except TypeError as error:
        raise UsageError(
            f"the provenance does not fit: {error}",
            reason="INVALID_FIELD",
            remedy='Pass mappings such as {"source": "notes.md", "line_start": 3}, or messages.',
        ) from None


def _provenance_entry(entry: Mapping[str, Any]) -> mip.Provenance:
    fields = dict(entry)
    known = [field.name for field in dataclasses.fields(mip.Provenance) if not field.name.startswith("_")]
    unknown = sorted(set(fields).difference(known))
    if unknown:
        raise UsageError(
            f"a provenance has no field {unknown[0]!r}",
            reason="INVALID_FIELD",
            remedy=f"The fields are: {', '.join(known)}.",
        )
    if isinstance(fields.get("kind"), str):
        fields["kind"] = enum_of(mip.ProvenanceKind, fields["kind"], "kind of provenance")
    return mip.Provenance(**fields)


def enum_of(enum: Any, value: Any, what: str) -> Any:
    """Returns the member that a name in any case or a number stands for.

    Raises:
        UsageError: There is none.
    """
    if isinstance(value, enum):
        return value
    if isinstance(value, str):
        member = enum.__members__.get(value.upper().replace("-", "_"))
        if member is not None:
            return member
    elif isinstance(value, int) and not isinstance(value, bool):
        return enum(value)
    names = ", ".join(name.lower() for name in enum.__members__ if name != "UNSPECIFIED")
    raise UsageError(f"{value!r} is not a {what}", reason="INVALID_FIELD", remedy=f"Use one of: {names}.")


def sensitivity_of(value: mip.Sensitivity | str | None) -> mip.Sensitivity:
    """Returns the sensitivity that a name stands for."""
    found: mip.Sensitivity = enum_of(mip.Sensitivity, value or mip.Sensitivity.UNSPECIFIED, "sensitivity")
    return found


class Slicer:
    """Cuts a stream of memories into batches; a memory above `max_bytes` makes a batch of its own."""

    def __init__(self, max_memories: int = MAX_SLICE_MEMORIES, max_bytes: int = MAX_SLICE_BYTES) -> None:
        """Starts with an empty batch."""
        self._max_memories = max_memories
        self._max_bytes = max_bytes
        self._batch: list[mip.Memory] = []
        self._size = 0

    def push(self, memory: mip.Memory) -> list[mip.Memory]:
        """Takes a memory in and returns the batch that it no longer fits into; empty while it fits."""
        # The tag and the length of an element take up to 8 bytes.
        weight = len(bytes(memory)) + 8
        full: list[mip.Memory] = []
        if self._batch and (len(self._batch) >= self._max_memories or self._size + weight > self._max_bytes):
            full = self.rest()
        self._batch.append(memory)
        self._size += weight
        return full

    def rest(self) -> list[mip.Memory]:
        """Returns what is left and starts anew."""
        batch, self._batch, self._size = self._batch, [], 0
        return batch


def as_of_revision(value: int | None) -> int:
    """Returns the revision to read at; 0 stands for the current one."""
    return 0 if value is None else value


def as_of(value: int | datetime.datetime | None) -> tuple[int, datetime.datetime | None]:
    """Returns revision and time of a search's `as_of`, of which at most one is set."""
    if isinstance(value, datetime.datetime):
        return 0, value
    return as_of_revision(value), None
