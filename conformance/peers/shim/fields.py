"""The content of a MIP memory as plain values, such as a library keeps in the metadata of an item."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import rfc8785
from google.protobuf import json_format

from conformance.peers.shim import contract, limits
from conformance.peers.shim.errors import Refusal, lacking

_WORDS = ("kind", "language", "media_type")
_TIMES = ("valid_from", "valid_until")
_INTERNAL = contract.enum_number("Sensitivity", "SENSITIVITY_INTERNAL")
UPDATABLE = frozenset(
    {
        *("plaintext", "plaintext.text", "plaintext.media_type", "plaintext.language", "plaintext.kind"),
        *("activation", "parametric", "extension", "tags", "labels", "attributes_json", "provenance"),
        *("valid_from", "valid_until", "confidence", "session", "sensitivity", "owner", "vectors"),
    }
)
"""The paths that an update mask may name, as UpdateMemoryRequest lists them."""


def refuse_unsupported(memory: Any, path: str) -> None:
    """Refuses what neither library has a place for, and what is wrong by itself.

    Args:
        memory: A Memory of a request.
        path: Where it stands in the request.

    Raises:
        Refusal: It holds something of the kind.
    """
    limits.refuse_unknown_fields(memory, path)
    payload = memory.WhichOneof("payload")
    if payload is None:
        raise Refusal("FIELD_REQUIRED", f"{path} needs a payload", f"{path}.plaintext")
    if payload != "plaintext":
        raise Refusal("UNKNOWN_PAYLOAD", f"this server keeps plaintext, not {payload}", f"{path}.{payload}")
    if memory.session:
        raise Refusal("SESSION_NOT_FOUND", "this server keeps no sessions", f"{path}.session")
    if memory.vectors:
        raise lacking("this server embeds all texts itself", f"{path}.vectors")
    if memory.HasField("confidence") and not 0 <= memory.confidence <= 1:
        raise Refusal("INVALID_FIELD", "confidence lies between 0 and 1", f"{path}.confidence")
    keys = [label.key for label in memory.labels]
    if len(set(keys)) != len(keys):
        raise Refusal("INVALID_FIELD", "a label's key is repeated", f"{path}.labels")
    for number, tag in enumerate(memory.tags):
        if not tag:
            raise Refusal("INVALID_FIELD", "a tag is empty", f"{path}.tags[{number}]")
    if memory.attributes_json and not isinstance(limits.json_value(memory.attributes_json, path), dict):
        raise Refusal("INVALID_JSON", "attributes are a JSON object", f"{path}.attributes_json")


def plain(memory: Any) -> dict[str, Any]:
    """Returns the content of a memory but its text: every key, None or empty where nothing is said."""
    values: dict[str, Any] = {word: getattr(memory.plaintext, word) for word in _WORDS}
    values["tags"] = sorted(set(memory.tags), key=str.encode)
    values["labels"] = {label.key: label.value for label in memory.labels}
    text = memory.attributes_json
    values["attributes"] = limits.json_value(text, "attributes_json") if text else None
    values["provenance"] = [json_format.MessageToDict(source) for source in memory.provenance]
    for name in _TIMES:
        values[name] = json_format.MessageToDict(memory).get(_camel(name)) if memory.HasField(name) else None
    values["confidence"] = memory.confidence if memory.HasField("confidence") else None
    # Kept as it is: nobody is below it where there is one principal, who may see everything.
    values["sensitivity"] = contract.enum_name("Sensitivity", memory.sensitivity or _INTERNAL)
    return values


def fill(memory: Any, text: str, values: dict[str, Any]) -> None:
    """Puts text and plain values into a memory; keys that are absent are as if empty."""
    memory.plaintext.text = text
    for word in _WORDS:
        setattr(memory.plaintext, word, values.get(word) or "")
    memory.tags.extend(values.get("tags") or [])
    labels = values.get("labels") or {}
    for key in sorted(labels, key=str.encode):
        memory.labels.add(key=key, value=labels[key])
    if values.get("attributes") is not None:
        memory.attributes_json = rfc8785.dumps(values["attributes"]).decode()
    for source in values.get("provenance") or []:
        json_format.ParseDict(source, memory.provenance.add())
    for name in _TIMES:
        if values.get(name):
            getattr(memory, name).FromJsonString(values[name])
    if values.get("confidence") is not None:
        memory.confidence = values["confidence"]
    if values.get("sensitivity"):
        memory.sensitivity = contract.enum_number("Sensitivity", values["sensitivity"])


def set_time(field: Any, text: str | None) -> None:
    """Sets a Timestamp from the ISO 8601 text of a library; one without a zone is local time."""
    if text:
        moment = datetime.fromisoformat(text).astimezone(UTC)
        field.FromDatetime(moment.replace(tzinfo=None))


def etag(resource: Any) -> str:
    """Returns a digest of what a library returned as content, state and owner of a Memory or Cube."""
    versioned = type(resource)()
    versioned.CopyFrom(resource)
    for name in ("name", "uid", "revision", "etag", "create_time", "update_time", "vectors"):
        if name in resource.DESCRIPTOR.fields_by_name:
            versioned.ClearField(name)
    return hashlib.sha256(versioned.SerializeToString(deterministic=True)).hexdigest()[:32]


def masked(current: Any, wanted: Any, paths: Sequence[str]) -> Any:
    """Returns the memory that an update leads to.

    Args:
        current: The memory as the library returned it.
        wanted: The memory of the request.
        paths: The update mask; empty means the fields that are populated.

    Raises:
        Refusal: A path does not exist or may not be updated.
    """
    for path in paths:
        if path != "*" and path not in UPDATABLE:
            raise Refusal("INVALID_MASK", f"{path} cannot be updated", "update_mask")
    content = sorted(name for name in UPDATABLE if "." not in name)
    chosen: Sequence[str] = paths
    if not paths:
        chosen = [name for name in content if name in {field.name for field, _ in wanted.ListFields()}]
    elif "*" in paths:
        chosen = [name for name in content if name not in ("sensitivity", "owner", "vectors")]
    result = contract.message_class("Memory")()
    result.CopyFrom(current)
    for path in chosen:
        owner, _, name = path.rpartition(".")
        source, target = (getattr(wanted, owner), getattr(result, owner)) if owner else (wanted, result)
        if not owner and name in ("activation", "parametric", "extension") and wanted.WhichOneof("payload") != name:
            continue
        target.ClearField(name)
        value = getattr(source, name)
        if contract.is_list(field := source.DESCRIPTOR.fields_by_name[name]):
            target_list = getattr(target, name)
            target_list.extend(value)
        elif field.message_type is not None:
            if source.HasField(name):
                getattr(target, name).CopyFrom(value)
        elif not field.has_presence or source.HasField(name):
            setattr(target, name, value)
    return result


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
