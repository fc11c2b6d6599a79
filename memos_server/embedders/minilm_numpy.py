"""all-MiniLM-L6-v2 in plain numpy, for machines where onnxruntime does not run.

A BERT encoder (Devlin et al., arXiv:1810.04805) with post-layer-normalisation, 6 layers, 12 heads, hidden size 384,
mean pooling over the attended tokens and L2 normalisation (Reimers & Gurevych, arXiv:1908.10084).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memos_server.embedders.weights import Tensors

LAYERS: Final = 6
HEADS: Final = 12
HIDDEN: Final = 384
HEAD_SIZE: Final = HIDDEN // HEADS
NORM_EPSILON: Final = 1e-12
MASKED: Final = np.float32(-1e9)
"""Added to the attention scores of padding: its share of the softmax is exactly 0."""
_GELU_ROWS: Final = 64
"""Rows of 1,536 elements per step of GELU: with its temporaries they stay in the cache of one core."""

Array = NDArray[np.float32]


class _Layer(NamedTuple):
    attention: Array
    attention_bias: Array
    output: Array
    output_bias: Array
    norm: tuple[Array, Array]
    up: Array
    up_bias: Array
    down: Array
    down_bias: Array
    final_norm: tuple[Array, Array]


class NumpyMiniLm:
    """The encoder. Its methods keep no state and are safe to call from several threads."""

    def __init__(self, tensors: Tensors) -> None:
        """Arranges the weights: transposed, query, key and value side by side, the scale of the scores folded in."""
        self._words = tensors["embeddings.word_embeddings.weight"]
        self._positions = (
            tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = _norm_weights(tensors, "embeddings.LayerNorm")
        self._layers = [_layer(tensors, f"encoder.layer.{number}") for number in range(LAYERS)]

    def run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Array:
        """Embeds a batch of token sequences.

        Args:
            ids: Token ids of shape (batch, length), padded on the right.
            mask: 1 for a token, 0 for padding; the same shape.

        Returns:
            float32 of shape (batch, 384), rows L2-normalised.
        """
        batch, length = ids.shape
        embedded: Array = self._words[ids] + self._positions[:length]
        hidden = _normed(embedded.reshape(batch * length, HIDDEN), *self._norm)
        bias = None if mask.all() else ((1 - mask) * MASKED).astype(np.float32)[:, None, None, :]
        for layer in self._layers:
            attended = _attention(hidden @ layer.attention + layer.attention_bias, batch, length, bias)
            hidden = _normed(attended @ layer.output + layer.output_bias + hidden, *layer.norm)
            inner: Array = hidden @ layer.up
            inner += layer.up_bias
            _gelu(inner)
            outer: Array = inner @ layer.down
            outer += layer.down_bias
            outer += hidden
            hidden = _normed(outer, *layer.final_norm)
        weights = mask.astype(np.float32)
        pooled: Array = np.einsum("bld,bl->bd", hidden.reshape(batch, length, HIDDEN), weights)
        pooled /= weights.sum(axis=1, keepdims=True)
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled


def _layer(tensors: Tensors, prefix: str) -> _Layer:
    def dense(name: str) -> tuple[Array, Array]:
        return np.ascontiguousarray(tensors[f"{prefix}.{name}.weight"].T), tensors[f"{prefix}.{name}.bias"]

    scale = np.float32(HEAD_SIZE**-0.5)
    query, key, value = (dense(f"attention.self.{part}") for part in ("query", "key", "value"))
    return _Layer(
        np.concatenate([query[0] * scale, key[0], value[0]], axis=1),
        np.concatenate([query[1] * scale, key[1], value[1]]),
        *dense("attention.output.dense"),
        _norm_weights(tensors, f"{prefix}.attention.output.LayerNorm"),
        *dense("intermediate.dense"),
        *dense("output.dense"),
        _norm_weights(tensors, f"{prefix}.output.LayerNorm"),
    )


def _norm_weights(tensors: Tensors, prefix: str) -> tuple[Array, Array]:
    return tensors[f"{prefix}.weight"], tensors[f"{prefix}.bias"]


def _normed(x: Array, weight: Array, bias: Array) -> Array:
    centred: Array = x - x.mean(axis=-1, keepdims=True)
    variance = np.einsum("...d,...d->...", centred, centred)[..., None] / HIDDEN
    centred *= 1 / np.sqrt(variance + NORM_EPSILON)
    centred *= weight
    centred += bias
    return centred


def _attention(projected: Array, batch: int, length: int, bias: Array | None) -> Array:
    """Returns softmax(QK^T) V for queries that are scaled already; shapes (batch * length, 3 * 384) -> (…, 384)."""
    heads = projected.reshape(batch, length, 3, HEADS, HEAD_SIZE).transpose(2, 0, 3, 1, 4)
    scores = heads[0] @ heads[1].swapaxes(-1, -2)
    if bias is not None:
        scores += bias
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return np.ascontiguousarray((scores @ heads[2]).transpose(0, 2, 1, 3)).reshape(batch * length, HIDDEN)


def _gelu(x: Array) -> None:
    """Applies x * Phi(x) in place, with the error function after Abramowitz & Stegun 7.1.26 (error <= 1.5e-7)."""
    for start in range(0, len(x), _GELU_ROWS):
        rows = x[start : start + _GELU_ROWS]
        size = np.abs(rows)
        size *= np.float32(0.5**0.5)
        t = 1 / (1 + np.float32(0.3275911) * size)
        tail = np.float32(1.061405429) * t
        for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
            tail += np.float32(coefficient)
            tail *= t
        np.square(size, out=size)
        np.negative(size, out=size)
        np.exp(size, out=size)
        tail *= size  # 1 - erf(|x| / sqrt 2)
        # x Phi(x) = max(x, 0) - |x| / 2 * (1 - erf(|x| / sqrt 2))
        np.abs(rows, out=size)
        size *= np.float32(0.5)
        tail *= size
        np.maximum(rows, 0, out=rows)
        rows -= tail
