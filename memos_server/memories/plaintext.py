"""Memories in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from memos_server._pb.mip.v1.memory_pb2 import BlobRef, Memory, Plaintext
from memos_server.errors import invalid_field
from memos_server.memories.uniting import agreed, united

MAX_TEXT_BYTES: Final = 262_144
"""The most bytes of a text (Plaintext.text)."""


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
        """Joins the texts by blank lines, in order, equal ones once, and unites what stands around them (`united`).

        Language, media type and kind are kept where all agree.

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
        merged = united(memories)
        merged.plaintext.CopyFrom(
            Plaintext(
                text=text,
                media_type=agreed((memory.plaintext.media_type for memory in memories), ""),
                language=agreed((memory.plaintext.language for memory in memories), ""),
                kind=agreed((memory.plaintext.kind for memory in memories), ""),
            )
        )
        return merged
