"""The default embedder: all-MiniLM-L6-v2 without torch, on onnxruntime or plain numpy."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from memos_server.embedders.base import EmbedderUnavailableError
from memos_server.embedders.weights import DIMENSION, MODEL, TOKENIZER, find_weights, load_tensors

_LOG = logging.getLogger(__name__)

MAX_TOKENS: Final = 256
"""The model's own limit, [CLS] and [SEP] included; the tokenizer's file says 128, which the model does not need."""
MAX_CHARACTERS: Final = 65_536
"""Characters of a text that are tokenized: 256 words are shorter but in texts made to be slow."""
BATCH_TOKENS: Final = 1024
"""Tokens of a batch, padding included: larger ones are no faster on a CPU, and at 4096 several times slower."""

Runtime = Literal["auto", "onnxruntime", "numpy"]


class _Encoder(Protocol):
    def run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns float32 (batch, 384), L2-normalised, for ids and mask of shape (batch, length)."""


class MiniLmEmbedder:
    """all-MiniLM-L6-v2 (Apache-2.0; Wang et al., arXiv:2002.10957): 384 dimensions, 256 tokens, English above all.

    Attributes:
        name: `all-MiniLM-L6-v2`.
        dimension: 384.
        max_tokens: 256.
        runtime: `onnxruntime` or `numpy`: what computes it.
    """

    name: str = MODEL
    dimension: int = DIMENSION
    max_tokens: int = MAX_TOKENS
    runtime: str

    def __init__(self, data_dir: str, *, runtime: Runtime = "auto", threads: int | None = None) -> None:
        """Loads the model (about half a second).

        Args:
            data_dir: The data folder; weights in its `models/minilm` come before those of the installed package.
            runtime: `onnxruntime`, `numpy` (half as fast, needs neither onnxruntime nor onnx), or `auto`: the first
                that is installed. An onnxruntime that is installed but does not work is an error, no reason for numpy.
            threads: The threads of one batch with onnxruntime; None takes every core that the process may use.
                numpy's are set by its BLAS, as by OPENBLAS_NUM_THREADS.

        Raises:
            EmbedderUnavailableError: Weights or packages are missing or damaged; says what to do.
            ValueError: A setting is wrong.
        """
        if runtime not in ("auto", "onnxruntime", "numpy"):
            raise ValueError(f"runtime must be auto, onnxruntime or numpy, not {runtime!r}")
        if threads is not None and not 1 <= threads <= 256:
            raise ValueError(f"threads must be 1 to 256, not {threads}")
        if runtime == "numpy" and threads is not None:
            raise ValueError("threads is for onnxruntime; numpy's are set by its BLAS, as by OPENBLAS_NUM_THREADS")
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise EmbedderUnavailableError(
                f"{MODEL} needs the package tokenizers ({error}); install memos-mip[server,minilm]"
            ) from error
        folder = find_weights(data_dir)
        self.runtime = _installed_runtime() if runtime == "auto" else runtime
        tensors = load_tensors(folder)
        self._encoder: _Encoder | None
        if self.runtime == "onnxruntime":
            from memos_server.embedders.minilm_onnx import OnnxMiniLm

            self._encoder = OnnxMiniLm(tensors, threads or _cores())
        else:
            from memos_server.embedders.minilm_numpy import NumpyMiniLm

            self._encoder = NumpyMiniLm(tensors)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER.name))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns float32 of shape (len(texts), 384), rows L2-normalised; see the port."""
        encoder = self._encoder
        if encoder is None:
            raise EmbedderUnavailableError(f"{MODEL} is closed")
        vectors = np.empty((len(texts), DIMENSION), np.float32)
        encoded = [item.ids for item in self._tokenizer.encode_batch_fast([text[:MAX_CHARACTERS] for text in texts])]
        for rows in _batches([len(ids) for ids in encoded]):
            length = len(encoded[rows[-1]])
            ids = np.zeros((len(rows), length), np.int64)
            mask = np.zeros((len(rows), length), np.int64)
            for at, row in enumerate(rows):
                tokens = encoded[row]
                ids[at, : len(tokens)] = tokens
                mask[at, : len(tokens)] = 1
            vectors[rows] = encoder.run(ids, mask)
        return vectors

    def close(self) -> None:
        """Lets go of the model."""
        self._encoder = None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _installed_runtime() -> str:
    missing = [name for name in ("onnxruntime", "onnx") if importlib.util.find_spec(name) is None]
    if not missing:
        return "onnxruntime"
    _LOG.warning("%s runs on numpy, half as fast: %s is not installed", MODEL, " and ".join(missing))
    return "numpy"


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Returns the texts' numbers in batches of similar length, each of at most BATCH_TOKENS or of one text."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not batches or (len(batches[-1]) + 1) * lengths[row] > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return batches
