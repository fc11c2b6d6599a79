"""Texts, vectors and questions, made once and read by every process that needs them.

Vectors lie in clusters about embeddings of the texts themselves: a question's embedding then has near neighbours, as it
has among real memories; a hundred thousand texts would take the embedder six minutes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness.texts import Texts
from numpy.typing import NDArray

from memos_server.memories.analysis import analyze

_CENTRES = 600
_QUESTIONS = 200
_NOISE = 0.7

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Supply:
    """What is added and asked.

    Attributes:
        texts: Texts, no two alike.
        vectors: float32 (texts, 384), of length 1, one for each text.
        questions: Natural questions.
        asked: float32 (questions, 384): their embeddings.
        source: Where the texts are from, in words.
    """

    texts: Sequence[str]
    vectors: Vectors
    questions: Sequence[str]
    asked: Vectors
    source: str

    def terms(self, number: int) -> list[str]:
        """Returns a question's terms, as the server analyses them."""
        return list(dict.fromkeys(analyze(self.questions[number % len(self.questions)])))


def make(folder: Path, data: Path | None, count: int) -> Supply:
    """Makes a supply in a folder, unless one that large is there; returns it."""
    about = folder / "supply.json"
    if not about.exists() or json.loads(about.read_text(encoding="utf-8"))["count"] < count:
        texts = Texts(data)
        made = texts.take(count)
        questions = list(dict.fromkeys(texts.questions))[:_QUESTIONS]
        embedded = _embedded([*made[:_CENTRES], *questions])
        centres, asked = embedded[: -len(questions)], embedded[-len(questions) :]
        random = np.random.default_rng(11)
        vectors = np.empty((count, centres.shape[1]), np.float32)
        for low in range(0, count, 10_000):
            high = min(low + 10_000, count)
            noise = random.standard_normal((high - low, centres.shape[1]), dtype=np.float32)
            chosen = centres[random.integers(0, len(centres), high - low)]
            vectors[low:high] = chosen + noise * (_NOISE / np.sqrt(np.float32(centres.shape[1])))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors.npy", vectors)
        np.save(folder / "asked.npy", asked)
        content: dict[str, Any] = {"count": count, "source": texts.source, "texts": made, "questions": questions}
        about.write_text(json.dumps(content), encoding="utf-8")
    return read(folder)


def read(folder: Path) -> Supply:
    """Returns the supply of a folder; the vectors stay on disk until they are used."""
    content = json.loads((folder / "supply.json").read_text(encoding="utf-8"))
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    return Supply(content["texts"], vectors, content["questions"], np.load(folder / "asked.npy"), content["source"])


def _embedded(texts: Sequence[str]) -> Vectors:
    """Returns the embeddings that the server would make of questions."""
    from memos_server.embedders.minilm import MiniLmEmbedder

    embedder = MiniLmEmbedder("")
    made = [np.asarray(embedder.embed(list(texts[low : low + 64])), np.float32) for low in range(0, len(texts), 64)]
    embedder.close()
    return np.concatenate(made)
