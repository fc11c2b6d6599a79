"""Searching with natural questions: hybrid search through the server, and its two channels beside numpy and bm25s."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import bm25s
import numpy as np
from harness.calls import batches, path_of, vector_message
from harness.figures import Figure, median
from harness.load import Done
from harness.texts import cycled, near
from harness.world import World
from numpy.typing import NDArray

from memos_server._pb.mip.v1.memory_pb2 import Memory, Plaintext
from memos_server._pb.mip.v1.memory_service_pb2 import (
    SEARCH_MODE_HYBRID,
    SearchMemoriesRequest,
    UpdateMemoryRequest,
)
from memos_server.memories.analysis import analyze
from memos_server.vec_dbs.base import IndexBatch, IndexContent, IndexQuery, IndexVersion, StateIn
from memos_server.vec_dbs.embedded import EmbeddedIndex

DEPTH = 200
"""How many candidates each channel of a search contributes; numpy and bm25s are asked for as many."""
_ACTIVE = StateIn(frozenset({1}))
_CUBE = "00000000-0000-7000-8000-000000000000"
_QUESTIONS = 100


def measure(world: World) -> list[Figure]:
    """Returns the figures of searching."""
    asked = cycled(world.texts.questions, 20 if world.quick else _QUESTIONS)
    figures: list[Figure] = []
    for size in world.sizes:
        figures += asyncio.run(_channels(world, size, asked))
    figures += _through_server(world, asked)
    figures += _past(world, asked)
    return figures


def _uid(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012x}"


def _index_batches(terms: Sequence[list[str]], vectors: NDArray[np.float32], revision: int) -> list[IndexBatch]:
    """Returns the commits that give memories 0, 1, 2 … a content each."""
    made = []
    for low in range(0, len(terms), 1000):
        numbers = range(low, min(low + 1000, len(terms)))
        revision += 1
        keys = [f"{revision}-{number}".encode() for number in numbers]
        contents = [
            IndexContent(key, terms[number], vector=vectors[number]) for key, number in zip(keys, numbers, strict=True)
        ]
        versions = [
            IndexVersion(_uid(number), revision, key, 1, 2, float(number), float(revision))
            for key, number in zip(keys, numbers, strict=True)
        ]
        made.append(IndexBatch(revision - 1, revision, contents, versions))
    return made


def _turns(ways: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, list[float]]:
    """Runs every way on every question, turn about; returns the milliseconds that each took."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-3, rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way(number)
            if number >= 0:
                times[name].append((time.perf_counter() - began) * 1e3)
    return times


def _best(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    depth = min(DEPTH, len(scores))
    found = np.argpartition(scores, len(scores) - depth)[-depth:]
    order: NDArray[np.int64] = found[np.argsort(-scores[found])]
    return order


async def _channels(world: World, size: int, asked: Sequence[str]) -> list[Figure]:
    """The index in this process, on the thread that asks, beside numpy and bm25s on the same vectors and terms."""
    texts, vectors = world.supply(size)
    terms = [analyze(text) for text in texts]
    questions = [list(dict.fromkeys(analyze(question))) for question in asked]
    queries = near(vectors, len(asked))
    index = EmbeddedIndex(str(world.folder / f"index-{size}"), snapshot_changes=100 * size)
    await index.open()
    for batch in _index_batches(terms, vectors, 0):
        await index.apply(_CUBE, vectors.shape[1], batch)
    head = await index.indexed_revision(_CUBE)
    searcher = index._slot(_CUBE).searcher
    words = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    words.index([text or ["\0"] for text in terms], show_progress=False)
    known = {term for text in terms for term in text}
    usable = [[term for term in question if term in known] or [terms[0][0]] for question in questions]

    def ask(revision: int, number: int, *, lexical: bool, vector: bool) -> None:
        searcher.search(
            IndexQuery(
                revision,
                _ACTIVE,
                4,
                terms=questions[number] if lexical else (),
                vector=queries[number] if vector else None,
                depth=DEPTH,
            )
        )

    def bm25(number: int) -> None:
        words.retrieve([usable[number]], k=min(DEPTH, size), show_progress=False, sorted=True)

    times = _turns(
        {
            "product": lambda n: _best(vectors @ queries[n]),
            "rows": lambda n: _best(np.vecdot(vectors, queries[n])),
            "vector": lambda n: ask(head, n, lexical=False, vector=True),
            "bm25s": bm25,
            "lexical": lambda n: ask(head, n, lexical=True, vector=False),
        },
        len(asked),
    )
    depth = f"best {DEPTH}"
    # The library spreads a product over the cores, which wait for each other when something else runs; row by row is
    # slower on an idle machine. The rival is whichever was faster here.
    times["scan"] = min(times["product"], times["rows"], key=median)
    figures = [
        Figure(f"vector part of a search, {size:,}", "ms", times["vector"], times["scan"], f"numpy scan, {depth}", 1.5),
        Figure(f"lexical part of a search, {size:,}", "ms", times["lexical"], times["bm25s"], f"bm25s, {depth}", 3.0),
    ]
    if size == world.sizes[2]:
        # Every second version superseded: every memory gets a second content.
        for batch in _index_batches(terms, vectors[::-1], head):
            await index.apply(_CUBE, vectors.shape[1], batch)
        now = await index.indexed_revision(_CUBE)
        searcher = index._slot(_CUBE).searcher
        past = _turns(
            {
                "present": lambda n: ask(now, n, lexical=True, vector=True),
                "past": lambda n: ask(head, n, lexical=True, vector=True),
            },
            len(asked),
        )
        name = f"as-of search in the index, {size:,} memories, half of the versions superseded"
        figures.append(Figure(name, "ms", past["past"], past["present"], "the present of the same cube", 2.0))
        figures.append(
            Figure(
                f"search of the present in the index, {size:,} superseded versions beside as many current",
                "ms",
                past["present"],
                [a + b for a, b in zip(times["lexical"], times["vector"], strict=True)],
                "both parts before there were any",
            )
        )
    await index.close()
    return figures


def _requests(cube: str, asked: Sequence[str], vectors: NDArray[np.float32], revision: int = 0) -> list[bytes]:
    return [
        SearchMemoriesRequest(
            cubes=[cube],
            query=question,
            mode=SEARCH_MODE_HYBRID,
            top_k=10,
            vector=vector_message(vector),
            as_of_revision=revision,
        ).SerializeToString()
        for question, vector in zip(asked, vectors, strict=True)
    ]


def _through_server(world: World, asked: Sequence[str]) -> list[Figure]:
    figures = []
    with world.clients() as process:
        dones: dict[int, list[Done]] = {size: [] for size in world.sizes}
        jobs = {}
        for size in world.sizes:
            _, vectors = world.supply(size)
            bodies = _requests(world.cube(size).name, asked, near(vectors, len(asked)))
            jobs[size] = world.job(path_of("SearchMemories"), bodies, 1, once=True)
            process.run(jobs[size])
        for _ in range(world.rounds):
            for size, job in jobs.items():
                dones[size].append(process.run(job))
    for size, done in dones.items():
        for share, name in ((0.5, "p50"), (0.99, "p99")):
            figures.append(
                Figure(f"hybrid search through the server, {size:,}, {name}", "ms", [d.quantile(share) for d in done])
            )
    return figures


def _past(world: World, asked: Sequence[str]) -> list[Figure]:
    """A cube all of whose memories were updated once, searched as it is and as it was."""
    size = world.sizes[1]
    texts, vectors = world.supply(size)
    cube = world.caller.make_cube("updated")
    world.caller.bulk(cube, batches(texts, vectors))
    before = world.caller("GetCube", name=cube).cube.revision
    names: list[str] = []
    token = ""
    while not names or token:
        page = world.caller("ListMemories", parent=cube, page_size=1000, page_token=token)
        names += [memory.name for memory in page.memories]
        token = page.next_page_token
    updates = [
        UpdateMemoryRequest(
            memory=Memory(
                name=name, plaintext=Plaintext(text=texts[-1 - number]), vectors=[vector_message(vectors[-1 - number])]
            )
        ).SerializeToString()
        for number, name in enumerate(names)
    ]
    queries = near(vectors, len(asked))
    now: list[Done] = []
    then: list[Done] = []
    with world.clients() as process:
        updated = process.run(world.job(path_of("UpdateMemory"), updates, 32, once=True))
        if updated.refused:
            raise RuntimeError(f"updates were refused: {updated.refused}")
        world.caller.searchable(cube)
        present = world.job(path_of("SearchMemories"), _requests(cube, asked, queries), 1, once=True)
        past = world.job(path_of("SearchMemories"), _requests(cube, asked, queries, before), 1, once=True)
        for turn in range(-1, world.rounds):
            for job, dones in ((present, now), (past, then)):
                done = process.run(job)
                if turn >= 0:
                    dones.append(done)
    figures = []
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        figures.append(
            Figure(
                f"as-of search through the server, {size:,} memories, half of the versions superseded, {name}",
                "ms",
                [done.quantile(share) for done in then],
                [done.quantile(share) for done in now],
                "the present of the same cube",
                2.0,
            )
        )
    rate = len(updated.times) / updated.seconds
    figures.append(Figure("32 clients update memories of one cube", "updates/s", [rate]))
    return figures
