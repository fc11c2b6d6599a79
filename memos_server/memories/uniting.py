"""What several memories have in common around their payloads, for the types' merge rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from memos_server._pb.mip.v1.memory_pb2 import Memory, Provenance

MAX_ITEMS: Final = 64
"""The most tags, labels and provenances of a memory (memory.proto)."""

_T = TypeVar("_T")


def united(memories: Sequence[Memory]) -> Memory:
    """Returns a memory without payload that stands for several in everything else; a merge rule adds the payload.

    Tags, labels and provenance are united, in order; the first memory wins where labels have the same key. Attributes,
    validity and confidence are kept where all agree. The session is not: the merge belongs to none. Of tags and labels
    the first 64 are kept; of provenance as many as leave room for naming the merged memories themselves.

    Args:
        memories: The memories in order, at least one.
    """
    merged = Memory(
        tags=list(dict.fromkeys(tag for memory in memories for tag in memory.tags))[:MAX_ITEMS],
        attributes_json=agreed((memory.attributes_json for memory in memories), ""),
        provenance=_provenance(memories)[: max(0, MAX_ITEMS - len(memories))],
    )
    labels = {label.key: label for memory in reversed(memories) for label in memory.labels}
    merged.labels.extend(labels[key] for key in sorted(labels)[:MAX_ITEMS])
    first = memories[0]
    for name in ("valid_from", "valid_until"):
        if all(memory.HasField(name) and getattr(memory, name) == getattr(first, name) for memory in memories):
            getattr(merged, name).CopyFrom(getattr(first, name))
    if all(memory.HasField("confidence") and memory.confidence == first.confidence for memory in memories):
        merged.confidence = first.confidence
    return merged


def agreed(values: Iterable[_T], otherwise: _T) -> _T:
    """Returns the value that all have, or another where they differ."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else otherwise


def _provenance(memories: Sequence[Memory]) -> list[Provenance]:
    """Returns the provenance of all, in order, equal ones once."""
    united = {item.SerializeToString(deterministic=True): item for memory in memories for item in memory.provenance}
    return list(united.values())
