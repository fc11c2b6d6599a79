"""What an index stores of a memory so that filters can be answered there: facets (exact-match words) and numbers.

The functions that name a facet are shared with the translation of filters (`fields.py`), so the two cannot differ.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from memos_server import json_text
from memos_server._pb.mip.v1.memory_pb2 import Memory, ProvenanceKind

MAX_FACET_BYTES: Final = 256
"""The longest facet; of a longer one the index stores a digest."""

MAX_ATTRIBUTE_FACETS: Final = 1024
"""The most facets of one memory's attributes; beyond them `ATTRIBUTES_CUT` marks the memory."""

_MAX_PATH: Final = 160

KIND_NAMES: Final = {number: name.removeprefix("PROVENANCE_KIND_") for name, number in ProvenanceKind.items() if number}
"""ProvenanceKind number -> its name without the prefix."""


def facet(prefix: str, value: str) -> str:
    """Returns the facet of a value: `prefix:value`, or `prefix#SHA-256` when that is longer than 256 bytes."""
    text = f"{prefix}:{value}"
    if len(text) <= MAX_FACET_BYTES // 4 or len(text.encode()) <= MAX_FACET_BYTES:
        return text
    return f"{prefix}#{hashlib.sha256(value.encode()).hexdigest()}"


ATTRIBUTES_CUT: Final = facet("attributes", "cut")
"""The facet of a memory some of whose attributes have no facet."""


def label_facet(key: str, value: str) -> str:
    """Returns the facet of a label; a key holds no `=`."""
    return facet("label", f"{key}={value}")


def attribute_path(parent: str, key: str) -> str:
    """Returns the bounded text of a path one key below `parent` (the empty text at the top).

    A long path becomes a digest step by step, so that deep paths with long keys cost no more than their length.
    """
    text = f"{parent}.{json.dumps(key, ensure_ascii=False)}"
    return text if len(text) <= _MAX_PATH else "#" + hashlib.sha256(text.encode()).hexdigest()


def scalar_text(value: str | float | bool | None) -> str:
    """Returns an unambiguous text of a JSON scalar; equal numbers have equal texts."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value
    return repr(float(value) + 0.0)  # adding zero makes -0.0 the 0.0 that it equals


def attribute_facet(path: str, value: str | float | bool | None) -> str:
    """Returns the facet of a scalar at a path."""
    return facet("attribute", f"{path}={scalar_text(value)}")


def element_facet(path: str, value: str | float | bool | None) -> str:
    """Returns the facet of a scalar element of the array at a path."""
    return facet("element", f"{path}={scalar_text(value)}")


def to_seconds(time: Timestamp) -> float:
    """Returns seconds since the epoch. Monotonic, but two times less than a microsecond apart may become equal."""
    return float(time.seconds + time.nanos / 1e9)


def text_of(memory: Memory) -> str:
    """Returns the words of a memory's payload."""
    arm = memory.WhichOneof("payload")
    if arm == "plaintext":
        return memory.plaintext.text
    return memory.extension.text if arm == "extension" else ""


def media_type_of(memory: Memory) -> str:
    """Returns the media type of a plaintext in lower case; empty for other payloads."""
    if memory.WhichOneof("payload") != "plaintext":
        return ""
    return memory.plaintext.media_type.lower() or "text/plain"


def session_id(name: str) -> str:
    """Returns the id of a session's name."""
    return name.rpartition("/")[2]


def attributes_of(memory: Memory) -> dict[str, Any]:
    """Returns the attributes; empty when there are none or they are no JSON object."""
    if not memory.attributes_json:
        return {}
    value = json_text.parse(memory.attributes_json)
    return value if isinstance(value, dict) else {}


def facets_of(memory: Memory) -> list[str]:
    """Returns the facets of a memory's content, each once, in a fixed order.

    Raises:
        JsonTextError: `attributes_json` is not what the server admits.
    """
    found: dict[str, None] = {}

    def add(prefix: str, value: str) -> None:
        if value:
            found[facet(prefix, value)] = None
            found[facet("has", prefix)] = None

    for tag in memory.tags:
        found[facet("tag", tag)] = None
    if memory.tags:
        found[facet("has", "tag")] = None
    for label in memory.labels:
        found[facet("key", label.key)] = None
        found[label_facet(label.key, label.value)] = None
    add("session", session_id(memory.session))
    add("payload", memory.WhichOneof("payload") or "")
    if memory.WhichOneof("payload") == "plaintext":
        add("kind", memory.plaintext.kind)
        add("language", memory.plaintext.language.lower())
        add("media_type", media_type_of(memory))
    for provenance in memory.provenance:
        add("speaker", provenance.speaker)
        add("source", provenance.source)
        add("provenance", KIND_NAMES.get(provenance.kind, ""))
    _add_attributes(attributes_of(memory), found)
    return list(found)


def _add_attributes(attributes: dict[str, Any], found: dict[str, None]) -> None:
    limit = len(found) + MAX_ATTRIBUTE_FACETS
    open_objects = [("", attributes)]
    while open_objects:
        parent, values = open_objects.pop()
        for key, value in values.items():
            path = attribute_path(parent, key)
            found[facet("attributes", path)] = None
            if isinstance(value, dict):
                open_objects.append((path, value))
            elif isinstance(value, list):
                for element in value:
                    if not isinstance(element, dict | list):
                        found[element_facet(path, element)] = None
                        if len(found) >= limit:
                            break
            else:
                found[attribute_facet(path, value)] = None
            if len(found) >= limit:
                found[ATTRIBUTES_CUT] = None
                return


def numbers_of(memory: Memory) -> dict[str, float]:
    """Returns the numbers of a content: `valid_from`, `valid_until` (seconds since the epoch) and `confidence`."""
    numbers = {}
    if memory.HasField("valid_from"):
        numbers["valid_from"] = to_seconds(memory.valid_from)
    if memory.HasField("valid_until"):
        numbers["valid_until"] = to_seconds(memory.valid_until)
    if memory.HasField("confidence"):
        numbers["confidence"] = memory.confidence
    return numbers
