"""MemOS's port for embedders, on the model that its backend `sentence_transformer` would load with torch."""

from __future__ import annotations

from typing import Any

from memos.embedders.base import BaseEmbedder

from conformance.peers.shim.embedder import minilm


class MiniLmEmbedder(BaseEmbedder):  # type: ignore[misc]
    """all-MiniLM-L6-v2."""

    def __init__(self, config: Any) -> None:
        """Keeps the configuration, as the port asks."""
        self.config = config

    def embed(self, texts: list[str]) -> list[list[float]]:
        """Returns the vector of each text."""
        return minilm().embed(texts)
