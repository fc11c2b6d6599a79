"""Memories in a model's weights: adapters, whose files are blobs."""

from __future__ import annotations

from collections.abc import Sequence

from memos_server._pb.mip.v1.memory_pb2 import BlobRef, Memory
from memos_server.errors import invalid_field


class ParametricType:
    """The payload `parametric`: found by its tags and labels, not by words, and bound to one base model."""

    payload = "parametric"
    extension_type = ""

    def validate(self, memory: Memory, field: str) -> None:
        """Accepts: the declared limits, JSON in recipe and evaluation among them, say all that holds of any adapter."""
        del memory, field

    def text(self, memory: Memory) -> str:
        """Returns nothing: weights have no words."""
        del memory
        return ""

    def blobs(self, memory: Memory) -> Sequence[BlobRef]:
        """Returns the adapter's files."""
        return memory.parametric.blobs

    def merge(self, memories: Sequence[Memory]) -> Memory:
        """Refuses: adapters that were trained apart are no adapter of both.

        Raises:
            MipError: FIELD_REQUIRED.
        """
        del memories
        raise invalid_field("merged", "must be set: parametric memories do not merge by themselves", "FIELD_REQUIRED")
