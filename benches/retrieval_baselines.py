"""Simple retrieval methods, computed in this process from the texts, terms and vectors that the server would use."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from memos_server._pb.mip.v1.memory_pb2 import Memory, Plaintext, Provenance
from memos_server.embedders.minilm import MiniLmEmbedder
from memos_server.memories.analysis import analyze
from memos_server.memories.indexed_text import indexed_text
from memos_server.memories.registry import MemoryTypes

METHODS = ("bm25", "dense", "rrf", "weighted")
K1, B = 0.9, 0.4
DENSE_WEIGHT = 0.7
RRF_K = 60
DEPTH = 200
_BATCH = 256

Scores = NDArray[np.float64]


@cache
def _embedder() -> MiniLmEmbedder:
    return MiniLmEmbedder(tempfile.gettempdir())


def embed(texts: Sequence[str], folder: Path | None) -> NDArray[np.float32]:
    """Returns float32 (texts, 384), from the folder when it has them."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    path = folder / f"{digest}.npy" if folder else None
    if path and path.exists():
        kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
        return kept
    vectors = np.concatenate([_embedder().embed(texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH)])
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors)
    return vectors


def texts_of(memories: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the indexed text of memories as the SDK takes them."""
    types = MemoryTypes.installed()
    texts = []
    for memory in memories:
        given = memory["provenance"]
        source = Provenance(speaker=given.get("speaker", ""))
        if "time" in given:
            source.time.CopyFrom(Timestamp(seconds=int(given["time"].timestamp())))
        texts.append(indexed_text(types, Memory(plaintext=Plaintext(text=memory["text"]), provenance=[source])))
    return texts


class Baselines:
    """The methods over one collection.

    Attributes:
        vectors: float32 (items, 384), the items' vectors.
    """

    def __init__(
        self, collection: Mapping[str, Any], memories: Sequence[Mapping[str, Any]], folder: Path | None
    ) -> None:
        """Indexes the items."""
        self._ids = [str(item["id"]) for item in collection["items"]]
        texts = texts_of(memories)
        self.vectors = embed(texts, folder)
        terms = [analyze(text) for text in texts]
        self._vocabulary = {term for document in terms for term in document}
        self._bm25 = bm25s.BM25(k1=K1, b=B, method="lucene")
        self._bm25.index([document or ["\0"] for document in terms], show_progress=False)

    def found(self, method: str, query: str, k: int) -> list[str]:
        """Returns the ids of the best items by a method of METHODS, best first."""
        words = self._words(query) if method != "dense" else np.zeros(len(self._ids))
        dense = self._dense(query) if method != "bm25" else np.zeros(len(self._ids))
        if method == "rrf":
            scores = _reciprocal(words, only_positive=True) + _reciprocal(dense)
        elif method == "weighted":
            depth = min(DEPTH, len(dense))
            floor = float(np.partition(dense, -depth)[-depth])
            scaled = np.clip((dense - floor) / max(float(dense.max()) - floor, 1e-9), 0.0, 1.0)
            scores = words / max(float(words.max()), 1e-9) + DENSE_WEIGHT * scaled
        else:
            scores = words + dense
        return [self._ids[place] for place in np.argsort(-scores, kind="stable")[:k]]

    def _words(self, query: str) -> Scores:
        terms = [term for term in dict.fromkeys(analyze(query)) if term in self._vocabulary]
        scores = self._bm25.get_scores(terms) if terms else np.zeros(len(self._ids))
        return np.asarray(scores, dtype=np.float64)

    def _dense(self, query: str) -> Scores:
        return np.asarray(self.vectors @ embed([query], None)[0], dtype=np.float64)


def _reciprocal(scores: Scores, *, only_positive: bool = False) -> Scores:
    """Returns 1 / (RRF_K + rank) of the best DEPTH (Cormack et al., SIGIR 2009), 0 for the others."""
    found = np.zeros(len(scores))
    order = np.argsort(-scores, kind="stable")[:DEPTH]
    if only_positive:
        order = order[scores[order] > 0]
    found[order] = 1.0 / (RRF_K + 1 + np.arange(len(order)))
    return found
