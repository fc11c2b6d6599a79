"""The port of memory types (`memos.memories`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from memos_server._pb.mip.v1.memory_pb2 import BlobRef, Memory


class MemoryType(Protocol):
    """A payload type: a oneof arm, or an extension type.

    Attributes:
        payload: The oneof arm: `plaintext`, `activation`, `parametric`, or `extension`.
        extension_type: For `extension`, the value of Extension.type that it handles; else empty.
    """

    payload: str
    extension_type: str

    def validate(self, memory: Memory, field: str) -> None:
        """Checks what the declared limits cannot.

        Args:
            memory: The memory as it came.
            field: The path of the memory in the request, such as `memories[3]`, to begin violations with.

        Raises:
            MipError: INVALID_ARGUMENT with the field and what is wrong.
        """

    def text(self, memory: Memory) -> str:
        """Returns what of the payload is indexed and embedded, in words; empty when nothing is."""

    def blobs(self, memory: Memory) -> Sequence[BlobRef]:
        """Returns the blobs that the payload names; the cube must hold them."""

    def merge(self, memories: Sequence[Memory]) -> Memory:
        """Returns the content that stands for all of them when the caller of MergeMemories gives none.

        Raises:
            MipError: FIELD_REQUIRED when the type cannot be merged without the caller's content.
        """
