"""Building of requests: memories from what people pass, update masks, batches within the limits."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from memos_sdk._core.convert import VALUE_ERRORS, enum_number, is_generated, timestamp, to_wire, unfit
from memos_sdk._core.names import child_name, principal_name
from memos_sdk._core.unset import Unset
from memos_sdk._gen import wire
from memos_sdk.errors import UsageError
from memos_sdk.models import Memory, Session

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip

MemoryLike: TypeAlias = str | Mapping[str, Any] | Memory
NameLike: TypeAlias = str | Memory


def memory_name(cube: str, value: NameLike) -> str:
    """Returns the full name of a memory of a cube."""
    return child_name(cube, "memories", value.name if isinstance(value, Memory) else value)


def session_name(cube: str, value: str | Session) -> str:
    """Returns the full name of a session of a cube; empty stays empty."""
    name = value.name if isinstance(value, Session) else value
    return child_name(cube, "sessions", name) if name else ""


def new_memory(cube: str, value: MemoryLike, **fields: Any) -> wire.Memory:
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
        return _merge(value._content_copy(), cube, given)
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
    return _merge(wire.Memory(), cube, given)


def _merge(message: wire.Memory, cube: str, fields: Mapping[str, Any]) -> wire.Memory:
    """Sets fields of a memory, with the names that `Cube.add` documents.

    Raises:
        UsageError: A field is unknown or cannot hold its value.
    """
    try:
        for key, item in fields.items():
            if key in _PLAIN:
                if item is not None:
                    # This makes the payload plaintext, whatever it was, also where the text is empty.
                    message.plaintext.SetInParent()
                    setattr(message.plaintext, key, item)
            elif key == "id":
                message.name = child_name(cube, "memories", item) if item else ""
            elif key in _SETTERS:
                message.ClearField(_FIELDS.get(key, key))
                if item is not None:
                    _SETTERS[key](message, cube, item)
            else:
                known = ", ".join([*_PLAIN, "id", *_SETTERS])
                raise UsageError(
                    f"a memory has no field {key!r}", reason="INVALID_FIELD", remedy=f"The fields are: {known}."
                )
    except UsageError:
        raise
    except VALUE_ERRORS as error:
        raise unfit("a memory", error) from error
    return message


def _set_labels(message: wire.Memory, cube: str, value: Any) -> None:
    message.labels.extend(labels_of(value))


def _set_provenance(message: wire.Memory, cube: str, value: Any) -> None:
    message.provenance.extend(provenance_of(value))


def _set_vectors(message: wire.Memory, cube: str, value: Any) -> None:
    message.vectors.extend(to_wire(vector, wire.Vector) for vector in value)


def _set_sensitivity(message: wire.Memory, cube: str, value: Any) -> None:
    message.sensitivity = sensitivity_of(value)


def _set_plain(name: str) -> Any:
    def setter(message: wire.Memory, cube: str, value: Any) -> None:
        setattr(message, name, value)

    return setter


def _set_time(name: str) -> Any:
    def setter(message: wire.Memory, cube: str, value: Any) -> None:
        getattr(message, name).CopyFrom(timestamp(value))

    return setter


def _set_payload(name: str, cls: Any) -> Any:
    def setter(message: wire.Memory, cube: str, value: Any) -> None:
        getattr(message, name).CopyFrom(to_wire(value, cls))

    return setter


_PLAIN = ("text", "kind", "media_type", "language")
# The message's field where it is not the argument's.
_FIELDS = {"attributes": "attributes_json"}
_SETTERS: dict[str, Any] = {
    "tags": lambda message, cube, value: message.tags.extend(tags_of(value)),
    "labels": _set_labels,
    "attributes": lambda message, cube, value: setattr(message, "attributes_json", attributes_of(value)),
    "provenance": _set_provenance,
    "session": lambda message, cube, value: setattr(message, "session", session_name(cube, value)),
    "owner": lambda message, cube, value: setattr(message, "owner", principal_name(value) if value else ""),
    "sensitivity": _set_sensitivity,
    "vectors": _set_vectors,
    "valid_from": _set_time("valid_from"),
    "valid_until": _set_time("valid_until"),
    "confidence": _set_plain("confidence"),
    "activation": _set_payload("activation", wire.Activation),
    "parametric": _set_payload("parametric", wire.Parametric),
    "extension": _set_payload("extension", wire.Extension),
}


def update(cube: str, name: NameLike, etag: str, fields: Mapping[str, Any]) -> tuple[wire.Memory, dict[str, list[str]]]:
    """Makes the message of an update and its mask: the fields that are not UNSET; None clears one.

    Raises:
        UsageError: Nothing is to be changed.
    """
    given = {key: value for key, value in fields.items() if not isinstance(value, Unset)}
    if not given:
        raise UsageError("nothing to update", reason="FIELD_REQUIRED", remedy="Pass the fields that change.")
    set_fields = {key: value for key, value in given.items() if value is not None}
    message = _merge(wire.Memory(), cube, set_fields)
    message.name = memory_name(cube, name)
    message.etag = etag
    paths = [f"plaintext.{key}" if key in _PLAIN else _FIELDS.get(key, key) for key in given]
    return message, {"paths": paths}


def tags_of(value: Iterable[str] | str | None) -> list[str]:
    """Returns a list of tags; one string is one tag, not its letters."""
    return [value] if isinstance(value, str) else list(value or ())


def labels_of(value: Mapping[str, str] | Iterable[mip.Label] | None) -> list[wire.Label]:
    """Returns labels, those of a mapping sorted by key."""
    if isinstance(value, Mapping):
        return [wire.Label(key=key, value=str(item)) for key, item in sorted(value.items())]
    return [to_wire(label, wire.Label) for label in value or ()]


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


def provenance_of(value: Any) -> list[wire.Provenance]:
    """Returns provenance entries from messages, mappings of their fields, or one of either."""
    if value is None:
        return []
    entries = [value] if isinstance(value, Mapping) or is_generated(value) else list(value)
    return [
        _provenance_entry(entry) if isinstance(entry, Mapping) else to_wire(entry, wire.Provenance) for entry in entries
    ]


def _provenance_entry(entry: Mapping[str, Any]) -> wire.Provenance:
    known = [field.name for field in wire.Provenance.DESCRIPTOR.fields]
    unknown = sorted(set(entry).difference(known))
    if unknown:
        raise UsageError(
            f"a provenance has no field {unknown[0]!r}",
            reason="INVALID_FIELD",
            remedy=f"The fields are: {', '.join(known)}.",
        )
    fields = {key: value for key, value in entry.items() if value is not None}
    if "kind" in fields:
        fields["kind"] = enum_number("ProvenanceKind", fields["kind"], "kind of provenance")
    if "time" in fields:
        fields["time"] = timestamp(fields["time"])
    return wire.Provenance(**fields)


def sensitivity_of(value: mip.Sensitivity | str | None) -> Any:
    """Returns the number of the sensitivity that a name or a member stands for; 0 for none."""
    return enum_number("Sensitivity", value or 0, "sensitivity")


def as_of_revision(value: int | None) -> int:
    """Returns the revision to read at; 0 stands for the current one."""
    return 0 if value is None else value


def as_of(value: int | datetime.datetime | None) -> tuple[int, datetime.datetime | None]:
    """Returns revision and time of a search's `as_of`, of which at most one is set."""
    if isinstance(value, datetime.datetime):
        return 0, value
    return as_of_revision(value), None
