"""Memories in a model's working state: KV caches and hidden states, whose tensors are blobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from memos_server._pb.mip.v1.memory_pb2 import BlobRef, KvCache, Memory
from memos_server.errors import invalid_field

TOKEN_BYTES: Final = 4
"""The bytes of a token id: little-endian uint32."""
BLOCK_HASH_BYTES: Final = 32
"""The bytes of a block's hash."""


class ActivationType:
    """The payload `activation`: found by its tags and labels, not by words, and valid for one model only."""

    payload = "activation"
    extension_type = ""

    def validate(self, memory: Memory, field: str) -> None:
        """Checks that the state's sort is named and that a KV cache's lists hold whole elements.

        Raises:
            MipError: FIELD_REQUIRED when neither kv_cache nor hidden_states is set; INVALID_FIELD.
        """
        path = f"{field}.activation"
        kind = memory.activation.WhichOneof("kind")
        if kind is None:
            raise invalid_field(f"{path}.kind", "must be kv_cache or hidden_states", "FIELD_REQUIRED")
        if kind == "kv_cache":
            _check_cache(memory.activation.kv_cache, f"{path}.kv_cache")

    def text(self, memory: Memory) -> str:
        """Returns nothing: a model's state has no words."""
        del memory
        return ""

    def blobs(self, memory: Memory) -> Sequence[BlobRef]:
        """Returns the tensors."""
        return memory.activation.blobs

    def merge(self, memories: Sequence[Memory]) -> Memory:
        """Refuses: keys and values that were computed apart are no cache of the texts together.

        Raises:
            MipError: FIELD_REQUIRED.
        """
        del memories
        raise invalid_field("merged", "must be set: activation memories do not merge by themselves", "FIELD_REQUIRED")


def _check_cache(cache: KvCache, path: str) -> None:
    if len(cache.token_ids) % TOKEN_BYTES:
        raise invalid_field(f"{path}.token_ids", f"has {len(cache.token_ids)} bytes, no multiple of {TOKEN_BYTES}")
    tokens = len(cache.token_ids) // TOKEN_BYTES
    if cache.token_ids and tokens != cache.token_count:
        raise invalid_field(f"{path}.token_ids", f"holds {tokens} token ids; token_count is {cache.token_count}")
    if len(cache.block_hashes) % BLOCK_HASH_BYTES:
        raise invalid_field(
            f"{path}.block_hashes", f"has {len(cache.block_hashes)} bytes, no multiple of {BLOCK_HASH_BYTES}"
        )
