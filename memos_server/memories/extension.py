"""Payloads of types that no plug-in here knows: kept byte for byte, and found by the words that came with them."""

from __future__ import annotations

from collections.abc import Sequence

from memos_server._pb.mip.v1.memory_pb2 import BlobRef, Memory
from memos_server.errors import invalid_field


class ExtensionType:
    """The payload `extension` of any type without a plug-in; a plug-in's own class takes its type's place."""

    payload = "extension"
    extension_type = ""

    def validate(self, memory: Memory, field: str) -> None:
        """Checks that the type is named: without it no plug-in would ever find its payload.

        Raises:
            MipError: FIELD_REQUIRED.
        """
        if not memory.extension.type.strip():
            raise invalid_field(f"{field}.extension.type", "must hold more than white space", "FIELD_REQUIRED")

    def text(self, memory: Memory) -> str:
        """Returns what the payload says of itself in words."""
        return memory.extension.text

    def blobs(self, memory: Memory) -> Sequence[BlobRef]:
        """Returns none: what an unknown payload names is unknown."""
        del memory
        return ()

    def merge(self, memories: Sequence[Memory]) -> Memory:
        """Refuses: how an unknown payload merges is unknown.

        Raises:
            MipError: FIELD_REQUIRED.
        """
        del memories
        raise invalid_field("merged", "must be set: this type does not merge by itself", "FIELD_REQUIRED")
