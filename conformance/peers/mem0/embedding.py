"""mem0's port for embedders, on the model that its provider `huggingface` would load with torch."""

from __future__ import annotations

from typing import Any

from conformance.peers.shim.embedder import minilm
from mem0.embeddings.base import EmbeddingBase

CLASS_PATH = f"{__name__}.MiniLmEmbedding"


class MiniLmEmbedding(EmbeddingBase):  # type: ignore[misc]
    """all-MiniLM-L6-v2."""

    def embed(self, text: str, memory_action: Any = None) -> list[float]:
        """Returns the text's vector; the same one whatever it is for."""
        return minilm().embed([text])[0]
