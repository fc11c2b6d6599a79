"""Memories in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from memos_server._pb.mip.v1.memory_pb2 import BlobRef, Memory, Plaintext, Provenance
from memos_server.errors import invalid_field

MAX_TEXT_BYTES: Final = 262_144
"""The most bytes of a text (Plaintext.text)."""
MAX_ITEMS: Final = 64
"""The most tags, labels and provenances of a memory (memory.proto)."""

_T = TypeVar("_T")


class PlaintextType:
    """The payload `plaintext`: search sees its text, and several merge into one by joining their texts."""

    payload = "plaintext"
    extension_type = ""

    def validate(self, memory: Memory, field: str) -> None:
        """Refuses a text of white space alone.

        Raises:
            MipError: FIELD_REQUIRED.
        """
        if not memory.plaintext.text.strip():
            raise invalid_field(f"{field}.plaintext.text", "must hold more than white space", "FIELD_REQUIRED")

    def text(self, memory: Memory) -> str:
        """Returns the text."""
        return memory.plaintext.text

    def blobs(self, memory: Memory) -> Sequence[BlobRef]:
        """Returns none: the words are the payload."""
        del memory
        return ()

    def merge(self, memories: Sequence[Memory]) -> Memory:
        """Joins the texts by blank lines, in order, equal ones once, and unites tags, labels and provenance.

        The first memory wins where labels have the same key. Language, media type, kind, attributes, validity and
        confidence are kept where all agree. The session is not: the merge belongs to none. Of tags and labels the first
        64 are kept; of provenance as many as leave room for naming the merged memories themselves.

        Args:
            memories: The memories in order, at least one.

        Raises:
            MipError: FIELD_REQUIRED when one is of another type; FIELD_TOO_LARGE when the texts together have more
                than 262,144 bytes.
        """
        if not all(memory.HasField("plaintext") for memory in memories):
            raise invalid_field(
                "merged", "must be set: memories of several types do not merge by themselves", "FIELD_REQUIRED"
            )
        text = "\n\n".join(dict.fromkeys(memory.plaintext.text for memory in memories))
        size = len(text.encode())
        if size > MAX_TEXT_BYTES:
            raise invalid_field(
                "sources", f"have {size} bytes of text together; at most {MAX_TEXT_BYTES} fit", "FIELD_TOO_LARGE"
            )
        merged = Memory(
            plaintext=Plaintext(
                text=text,
                media_type=_agreed((memory.plaintext.media_type for memory in memories), ""),
                language=_agreed((memory.plaintext.language for memory in memories), ""),
                kind=_agreed((memory.plaintext.kind for memory in memories), ""),
            ),
            tags=list(dict.fromkeys(tag for memory in memories for tag in memory.tags))[:MAX_ITEMS],
            attributes_json=_agreed((memory.attributes_json for memory in memories), ""),
            provenance=_provenance(memories)[: max(0, MAX_ITEMS - len(memories))],
        )
        labels = {label.key: label for memory in reversed(memories) for label in memory.labels}
        merged.labels.extend(labels[key] for key in sorted(labels)[:MAX_ITEMS])
        _keep_agreed(merged, memories)
        return merged


def _provenance(memories: Sequence[Memory]) -> list[Provenance]:
    """Returns the provenance of all, in order, equal ones once."""
    united = {item.SerializeToString(deterministic=True): item for memory in memories for item in memory.provenance}
    return list(united.values())


def _keep_agreed(merged: Memory, memories: Sequence[Memory]) -> None:
    """Sets validity and confidence where all memories have the same."""
    first = memories[0]
    for name in ("valid_from", "valid_until"):
        if all(memory.HasField(name) and getattr(memory, name) == getattr(first, name) for memory in memories):
            getattr(merged, name).CopyFrom(getattr(first, name))
    if all(memory.HasField("confidence") and memory.confidence == first.confidence for memory in memories):
        merged.confidence = first.confidence


def _agreed(values: Iterable[_T], otherwise: _T) -> _T:
    """Returns the value that all have, or another where they differ."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else otherwise
