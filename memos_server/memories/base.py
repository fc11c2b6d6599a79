"""The port of memory types (`memos.memories`).

A type says what the server cannot know of a payload: whether it is right, what of it search sees in words, which blobs
it names, and what several become when they merge. It changes nothing: the bytes that a caller sent are what is sealed,
hashed and kept, with the type installed or without it.

One object serves all calls, on several threads at once and some of them on the event loop: methods are plain functions
that keep no state, wait for nothing, and take well below a millisecond. The messages that they need are those that this
module exports; errors are made by `memos_server.errors.invalid_field`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from memos_server._pb.mip.v1.memory_pb2 import BlobRef, Extension, Memory

__all__ = ["BlobRef", "Extension", "Memory", "MemoryType"]


class MemoryType(Protocol):
    """A payload type: a oneof arm, or an extension type.

    Attributes:
        payload: The oneof arm: `plaintext`, `activation`, `parametric`, or `extension`.
        extension_type: For `extension`, the value of Extension.type that it handles; else empty.
    """

    payload: str
    extension_type: str

    def validate(self, memory: Memory, field: str) -> None:
        """Checks a memory that is added, updated or merged, beyond the limits that memory.proto declares.

        Memories that are here already are not checked again: those of a server that lacked the type, for one.

        Args:
            memory: The memory as it came, with this type's payload; it stays as it is.
            field: The path of the memory in the request, such as `memories[3]`, to begin violations with:
                `memories[3].extension.data`, and what lies within the data after another dot.

        Raises:
            MipError: INVALID_ARGUMENT with the field and what is wrong, which never repeats the content:
                `invalid_field(f"{field}.extension.data.due", "must be a date such as 2026-11-21")`.
        """

    def text(self, memory: Memory) -> str:
        """Returns what of the payload is indexed and embedded, in words; empty when nothing is.

        Called for every memory of the type when an index is made, also for those that `validate` never saw, and must
        give the same words for the same content. Speaker, date and tags are added by the server. `Extension.text` is
        what a server without the type indexes instead; a client should send the same words there.

        Raises:
            MipError: The content cannot be read. The memory is then found by `Extension.text`.
        """

    def blobs(self, memory: Memory) -> Sequence[BlobRef]:
        """Returns the blobs that the payload names; the cube must hold them. Usually none: `()`."""

    def merge(self, memories: Sequence[Memory]) -> Memory:
        """Returns the content that stands for all of them when the caller of MergeMemories gives none.

        The result is checked by `validate`. Begin with `memos_server.memories.uniting.united(memories)`, which unites
        tags, labels, provenance, validity and confidence, and add the payload. The server adds the provenance that
        names the merged memories, and the label of the strictest.

        Args:
            memories: Whole memories, the target first where the caller names one; the first is of this type, the others
                may be of any.

        Raises:
            MipError: FIELD_REQUIRED when they cannot be merged without the caller's content:
                `invalid_field("merged", "must be set: …", "FIELD_REQUIRED")`.
        """
