"""The port of embedders (`memos.embedders`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class EmbedderUnavailableError(Exception):
    """The embedder cannot run here; the message says why and what to do."""


class Embedder(Protocol):
    """A text embedding model.

    Attributes:
        name: The model's name as cubes record it, such as `all-MiniLM-L6-v2`.
        dimension: The number of elements of a vector.
        max_tokens: The most tokens that influence a vector; later ones are cut off.
        runtime: What computes it, such as `onnxruntime` or `numpy`.
    """

    name: str
    dimension: int
    max_tokens: int
    runtime: str

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns float32 of shape (len(texts), dimension), rows L2-normalised.

        CPU-bound and safe to call from several threads. A text's vector does not depend on the other texts of the call
        (cosine >= 0.99999 between any two batchings).
        """

    def close(self) -> None:
        """Lets go of the model."""
