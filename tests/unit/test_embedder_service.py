"""The embedding service: shared batches, queries beside bulk work, the cache, cancellation and the end."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from memos_server.embedders.service import EmbeddingService
from memos_server.errors import MipError


class HashEmbedder:
    """A small model without weights: a text's vector comes from its digest. It can be held up, and it can fail."""

    name = "hash"
    dimension = 8
    max_tokens = 100
    runtime = "python"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Semaphore(0)
        self.closed = False

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Waits until it may go on, then embeds."""
        self.calls.append(list(texts))
        self.entered.release()
        if "query" not in texts[0]:
            assert self.go.wait(10)
        if "broken" in texts:
            raise ArithmeticError("the model fails")
        rows = np.array([expected(text) for text in texts], np.float32)
        if "narrow" in texts:
            return rows[:, :4]
        rows[[number for number, text in enumerate(texts) if text == "no number"]] = np.nan
        return rows[1:] if "too few" in texts else rows

    def close(self) -> None:
        """Notes that it was closed."""
        self.closed = True

    async def wait_until_entered(self) -> None:
        """Returns when a call has begun."""
        assert await asyncio.to_thread(self.entered.acquire, True, 10)


def expected(text: str) -> NDArray[np.float32]:
    """Returns the vector of a text."""
    numbers = np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], np.uint8) + np.float32(1)
    return (numbers / np.linalg.norm(numbers)).astype(np.float32)


@pytest.fixture
def model() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture
async def service(model: HashEmbedder) -> AsyncIterator[EmbeddingService]:
    made = EmbeddingService(model)
    yield made
    model.go.set()
    await made.close()


async def test_each_text_gets_its_vector_in_order(service: EmbeddingService) -> None:
    texts = ["b", "a" * 500, "b", "", "c"]
    vectors = await service.embed(texts)
    assert len(vectors) == 5
    for text, vector in zip(texts, vectors, strict=True):
        assert vector.dtype == np.float32
        assert vector.tolist() == expected(text).tolist()


async def test_no_texts_need_no_model(service: EmbeddingService, model: HashEmbedder) -> None:
    assert await service.embed([]) == []
    assert model.calls == []


async def test_concurrent_calls_share_batches(service: EmbeddingService, model: HashEmbedder) -> None:
    model.go.clear()
    first = asyncio.create_task(service.embed(["first"]))
    await model.wait_until_entered()
    others = [asyncio.create_task(service.embed([f"text {number}"])) for number in range(64)]
    await asyncio.sleep(0)
    model.go.set()
    answers = await asyncio.gather(first, *others)
    assert [len(call) for call in model.calls] == [1, 32, 32]
    assert answers[64][0].tolist() == expected("text 63").tolist()


async def test_batches_hold_texts_of_similar_length(model: HashEmbedder) -> None:
    service = EmbeddingService(model, batch=4)
    lengths = [50, 1, 40, 2, 30, 3, 20, 4]
    await service.embed(["x" * length for length in lengths])
    assert [[len(text) for text in call] for call in model.calls] == [[1, 2, 3, 4], [20, 30, 40, 50]]
    await service.close()


async def test_a_text_that_waits_already_is_embedded_once(service: EmbeddingService, model: HashEmbedder) -> None:
    answers = await asyncio.gather(*(service.embed(["same", "same"]) for _ in range(10)))
    assert model.calls == [["same"]]
    assert all(vector.tolist() == expected("same").tolist() for vectors in answers for vector in vectors)


async def test_a_query_does_not_wait_for_the_bulk(service: EmbeddingService, model: HashEmbedder) -> None:
    model.go.clear()
    bulk = asyncio.create_task(service.embed([f"text {number}" for number in range(100)]))
    await model.wait_until_entered()
    vector = await asyncio.wait_for(service.embed_query("query"), 5)
    assert vector.tolist() == expected("query").tolist()
    assert not bulk.done()
    model.go.set()
    assert len(await bulk) == 100


async def test_a_vector_is_computed_once_for_bulk_and_queries(service: EmbeddingService, model: HashEmbedder) -> None:
    (stored,) = await service.embed(["text"])
    asked = await service.embed_query("text")
    assert asked is stored
    assert model.calls == [["text"]]


async def test_vectors_are_read_only(service: EmbeddingService) -> None:
    vector = await service.embed_query("query")
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


async def test_the_cache_keeps_to_its_budget_and_drops_the_longest_unused(model: HashEmbedder) -> None:
    service = EmbeddingService(model, cache_bytes=3 * (8 * 4 + 256))
    for text in ("a", "b", "c", "a", "d"):
        await service.embed([text])
    model.calls.clear()
    await service.embed(["a", "c", "d"])
    assert model.calls == []
    await service.embed(["b"])
    assert model.calls == [["b"]]
    await service.close()


async def test_forgotten_vectors_are_computed_again(service: EmbeddingService, model: HashEmbedder) -> None:
    await service.embed(["text"])
    service.forget()
    await service.embed(["text"])
    assert model.calls == [["text"], ["text"]]


async def test_what_is_under_way_when_all_is_forgotten_is_not_cached(
    service: EmbeddingService, model: HashEmbedder
) -> None:
    model.go.clear()
    bulk = asyncio.create_task(service.embed(["text"]))
    await model.wait_until_entered()
    service.forget()
    model.go.set()
    assert (await bulk)[0].tolist() == expected("text").tolist()
    await service.embed(["text"])
    assert model.calls == [["text"], ["text"]]


async def test_a_cancelled_call_leaves_the_queue_and_disturbs_nobody(
    service: EmbeddingService, model: HashEmbedder
) -> None:
    model.go.clear()
    first = asyncio.create_task(service.embed(["first"]))
    await model.wait_until_entered()
    cancelled = asyncio.create_task(service.embed(["mine alone", "shared"]))
    stays = asyncio.create_task(service.embed(["shared", "other"]))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    model.go.set()
    await first
    assert [vector.tolist() for vector in await stays] == [expected("shared").tolist(), expected("other").tolist()]
    assert sorted(text for call in model.calls for text in call) == ["first", "other", "shared"]
    assert (await service.embed(["mine alone"]))[0].tolist() == expected("mine alone").tolist()


async def test_a_call_that_is_cancelled_while_its_batch_runs_disturbs_nobody(
    service: EmbeddingService, model: HashEmbedder
) -> None:
    model.go.clear()
    cancelled = asyncio.create_task(service.embed(["text"]))
    await model.wait_until_entered()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    again = asyncio.create_task(service.embed(["text"]))
    await asyncio.sleep(0)
    model.go.set()
    assert (await again)[0].tolist() == expected("text").tolist()


async def test_the_models_error_reaches_its_callers_and_the_service_goes_on(service: EmbeddingService) -> None:
    with pytest.raises(ArithmeticError, match="the model fails"):
        await service.embed(["broken"])
    assert (await service.embed(["text"]))[0].tolist() == expected("text").tolist()


@pytest.mark.parametrize("text", ["too few", "narrow", "no number"])
async def test_what_is_no_vector_is_an_error_and_is_not_kept(
    service: EmbeddingService, model: HashEmbedder, text: str
) -> None:
    for call in (service.embed([text]), service.embed_query(text), service.embed(["other", text])):
        with pytest.raises(MipError) as raised:
            await asyncio.wait_for(call, 5)
        assert raised.value.reason == "BACKEND_UNAVAILABLE"
    assert [call for call in model.calls if text in call] == [[text], [text], ["other", text]]
    assert service.waiting == 0


async def test_a_text_without_a_vector_leaves_the_others_of_its_batch_theirs(
    service: EmbeddingService, model: HashEmbedder
) -> None:
    model.go.clear()
    first = asyncio.create_task(service.embed(["first"]))
    await model.wait_until_entered()
    others = [asyncio.create_task(service.embed([text])) for text in ("a", "no number", "b")]
    await asyncio.sleep(0)
    model.go.set()
    await first
    a, failed, b = await asyncio.gather(*others, return_exceptions=True)
    assert len(model.calls) == 2
    assert [a[0].tolist(), b[0].tolist()] == [expected("a").tolist(), expected("b").tolist()]  # type: ignore[index]
    assert isinstance(failed, MipError)


async def test_without_a_model_the_error_says_so() -> None:
    service = EmbeddingService(None)
    for call in (service.embed(["text"]), service.embed_query("query")):
        with pytest.raises(MipError) as raised:
            await call
        assert raised.value.reason == "EMBEDDER_UNAVAILABLE"
    await service.close()


async def test_closing_answers_those_who_wait_and_closes_the_model(model: HashEmbedder) -> None:
    service = EmbeddingService(model)
    model.go.clear()
    begun = asyncio.create_task(service.embed(["first"]))
    await model.wait_until_entered()
    waiting = asyncio.create_task(service.embed(["waiting"]))
    await asyncio.sleep(0)
    service.forget()
    closing = asyncio.create_task(service.close())
    await asyncio.sleep(0)
    model.go.set()
    await closing
    with pytest.raises(MipError) as raised:
        await waiting
    assert raised.value.reason == "SHUTTING_DOWN"
    assert (await begun)[0].tolist() == expected("first").tolist()
    assert model.closed
    assert model.calls == [["first"]]
    with pytest.raises(MipError) as raised:
        await service.embed(["late"])
    assert raised.value.reason == "SHUTTING_DOWN"
    await service.close()


async def test_large_batches_are_hashed_off_the_loop_and_come_back_in_order(service: EmbeddingService) -> None:
    texts = [f"{number} " + "x" * 2000 for number in range(100)]
    vectors = await service.embed(texts)
    assert all(vector.tolist() == expected(text).tolist() for text, vector in zip(texts, vectors, strict=True))
