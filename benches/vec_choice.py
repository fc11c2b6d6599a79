"""Measures what the embedded index chose against what it could have chosen (docs/adr/0004-embedded-index.md).

Vectors: numpy float32 scan, usearch exact (float32 and int8), usearch HNSW, and the index. Words: bm25s, SQLite FTS5
and the index. Texts are drawn from a Zipf-like vocabulary with the lengths of chat turns, the questions are words of
one text with the common words that a question has, and stop words stay in: the hard case for an inverted index.
Everything of one size runs in one process, turn about, so that the noise of a shared machine meets all alike.

    python benches/vec_choice.py --sizes 10000 100000 --json vec_choice.json
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import inspect
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memos_server.vec_dbs.base import (
    IndexBatch,
    IndexContent,
    IndexQuery,
    IndexVersion,
    StateIn,
)
from memos_server.vec_dbs.embedded import EmbeddedIndex
from memos_server.vec_dbs.embedded.columns import CHUNK_ROWS

CUBE = "0192f7a0-0000-7000-8000-00000000c0be"
DIMENSION = 384
VOCABULARY = 60_000
BATCH = 1_000
TOP = 10
ACTIVE = StateIn(frozenset({1}))


def uid(number: int) -> str:
    """Returns the uid of a memory."""
    return f"0192f7a0-0000-7000-8000-{number:012x}"


class Corpus:
    """Texts, vectors and questions of one size."""

    def __init__(self, size: int, questions: int, seed: int = 7) -> None:
        """Draws them."""
        random = np.random.default_rng(seed)
        weight = 1.0 / (np.arange(VOCABULARY) + 2.7)
        cumulative = np.cumsum(weight / weight.sum())
        lengths = random.integers(15, 80, size)
        drawn = np.searchsorted(cumulative, random.random(int(lengths.sum())))
        words = [f"w{number}" for number in range(VOCABULARY + 1)]
        ends = np.cumsum(lengths)
        self.texts = [
            [words[n] for n in drawn[end - length : end].tolist()] for end, length in zip(ends, lengths, strict=True)
        ]
        # Clustered, as embeddings are: recall on uniform noise would be unfair to HNSW.
        centres = random.standard_normal((max(64, size // 100), DIMENSION), dtype=np.float32)
        vectors = centres[random.integers(0, len(centres), size)]
        vectors += 0.7 * random.standard_normal(vectors.shape, dtype=np.float32)
        self.vectors: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        chosen = random.integers(0, size, questions)
        # Without repeats: bm25s counts a repeated word twice, the index once.
        self.questions = [
            list(dict.fromkeys([*random.choice(self.texts[n], 6, replace=False).tolist(), *words[:6:2]]))
            for n in chosen.tolist()
        ]
        asked = self.vectors[chosen] + 0.03 * random.standard_normal((questions, DIMENSION), dtype=np.float32)
        self.asked: NDArray[np.float32] = asked / np.linalg.norm(asked, axis=1, keepdims=True)


def quantiles(times: Sequence[float]) -> dict[str, float]:
    """Returns median and 95th percentile in milliseconds."""
    return {"p50_ms": float(np.median(times)) * 1e3, "p95_ms": float(np.quantile(times, 0.95)) * 1e3}


Way = Callable[[int], Any]


async def compare(ways: dict[str, Way], rounds: int) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Runs every way on every question, turn about; returns times and answers. The index's way to its thread counts."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[Any]] = {name: [] for name in ways}
    for number in range(-3, rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            answer = way(number)
            if inspect.isawaitable(answer):
                answer = await answer
            if number < 0:
                continue
            times[name].append(time.perf_counter() - start)
            answers[name].append(answer)
    return {name: quantiles(taken) for name, taken in times.items()}, answers


def batches(corpus: Corpus) -> list[IndexBatch]:
    """Returns the commits that add the corpus, BATCH memories each."""
    made = []
    for low in range(0, len(corpus.texts), BATCH):
        numbers = range(low, min(low + BATCH, len(corpus.texts)))
        revision = low // BATCH + 1
        contents = [
            IndexContent(
                n.to_bytes(32, "big"), corpus.texts[n], (f"tag:{n % 10}",), (f"E{n % 5000}",), {}, corpus.vectors[n]
            )
            for n in numbers
        ]
        versions = [IndexVersion(uid(n), revision, n.to_bytes(32, "big"), 1, 2, float(n), float(n)) for n in numbers]
        made.append(IndexBatch(revision - 1, revision, contents, versions))
    return made


def best(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns the places of the best TOP scores."""
    return np.argpartition(scores, len(scores) - TOP)[-TOP:]


def in_chunks(vectors: NDArray[np.float32], asked: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the scan as one matrix product per chunk of the index, which the library spreads over the cores."""
    return np.concatenate(
        [vectors[low : low + CHUNK_ROWS] @ asked for low in range(0, len(vectors), CHUNK_ROWS)], dtype=np.float32
    )


async def measure(size: int, rounds: int, hnsw: bool) -> dict[str, Any]:
    """Measures everything at one size."""
    import bm25s
    from usearch.index import Index, search

    corpus = Corpus(size, rounds)
    result: dict[str, Any] = {"size": size, "build_s": {}, "memory": {}}
    build: dict[str, float] = result["build_s"]

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        made = work()
        build[name] = time.perf_counter() - start
        return made

    with tempfile.TemporaryDirectory() as folder:
        index = EmbeddedIndex(folder, snapshot_changes=10 * size)
        await index.open()
        taken = []
        prepared = batches(corpus)

        for batch in prepared:
            start = time.perf_counter()
            await index.apply(CUBE, DIMENSION, batch)
            taken.append(time.perf_counter() - start)
        build["index: apply all"] = sum(taken)
        result["apply_1000"] = {**quantiles(taken), "max_ms": max(taken) * 1e3}
        head = len(prepared)
        del prepared
        gc.collect()

        def ask(revision: int, *, words: bool, vector: bool, depth: int = TOP) -> Way:
            async def way(number: int) -> set[int]:
                query = IndexQuery(
                    revision,
                    ACTIVE,
                    4,
                    terms=corpus.questions[number] if words else (),
                    vector=corpus.asked[number] if vector else None,
                    depth=depth,
                )
                return {int(c.uid[-12:], 16) for c in (await index.search(CUBE, query)).candidates}

            return way

        eighth = np.round(corpus.vectors * 127).astype(np.int8)
        asked8 = np.round(corpus.asked * 127).astype(np.int8)
        vector_ways: dict[str, Way] = {
            "numpy float32": lambda n: set(best(corpus.vectors @ corpus.asked[n]).tolist()),
            "numpy float32, in chunks": lambda n: set(best(in_chunks(corpus.vectors, corpus.asked[n])).tolist()),
            "index": ask(head, words=False, vector=True),
            "usearch exact float32": lambda n: set(
                search(corpus.vectors, corpus.asked[n], TOP, "ip", exact=True).keys.tolist()
            ),
            "usearch exact int8": lambda n: set(search(eighth, asked8[n], TOP, "ip", exact=True).keys.tolist()),
        }
        if hnsw:
            graph = Index(ndim=DIMENSION, metric="ip", dtype="f32")
            timed("usearch HNSW", lambda: graph.add(np.arange(size), corpus.vectors))
            vector_ways["usearch HNSW"] = lambda n: set(graph.search(corpus.asked[n], TOP).keys.tolist())
        result["vectors"], answers = await compare(vector_ways, rounds)
        for name, found in answers.items():
            pairs = zip(found, answers["numpy float32"], strict=True)
            result["vectors"][name]["recall"] = float(np.mean([len(a & b) / TOP for a, b in pairs]))

        retriever = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
        timed("bm25s", lambda: retriever.index(corpus.texts, show_progress=False))
        connection = sqlite3.connect(Path(folder) / "fts.sqlite")
        connection.execute("CREATE VIRTUAL TABLE texts USING fts5(text, content='', detail=full)")

        def fill_fts() -> None:
            rows = ((n + 1, " ".join(text)) for n, text in enumerate(corpus.texts))
            connection.executemany("INSERT INTO texts(rowid, text) VALUES (?, ?)", rows)
            connection.commit()

        timed("FTS5", fill_fts)
        fts = "SELECT rowid FROM texts WHERE texts MATCH ? ORDER BY bm25(texts) LIMIT ?"
        result["words"], answers = await compare(
            {
                "bm25s": lambda n: set(
                    retriever.retrieve([corpus.questions[n]], k=TOP, show_progress=False).documents[0].tolist()
                ),
                "index": ask(head, words=True, vector=False),
                "index, depth 200": ask(head, words=True, vector=False, depth=200),
                "SQLite FTS5": lambda n: {
                    row[0] - 1 for row in connection.execute(fts, (" OR ".join(set(corpus.questions[n])), TOP))
                },
            },
            rounds,
        )
        connection.close()
        for name, found in answers.items():
            pairs = zip(found, answers["bm25s"], strict=True)
            result["words"][name]["same_top"] = float(np.mean([len(a & b) / TOP for a, b in pairs]))

        hybrid = ask(head, words=True, vector=True, depth=200)
        result["hybrid"], _ = await compare({"index": hybrid}, rounds)
        # Half of the versions superseded: every second memory gets a new content.
        for low in range(0, size, 2 * BATCH):
            numbers = range(low, min(low + 2 * BATCH, size), 2)
            revision = await index.indexed_revision(CUBE) + 1
            keys = {n: (n + size).to_bytes(32, "big") for n in numbers}
            contents = [
                IndexContent(keys[n], corpus.texts[n], (f"tag:{n % 10}",), (f"E{n % 5000}",), {}, corpus.vectors[n])
                for n in numbers
            ]
            versions = [IndexVersion(uid(n), revision, keys[n], 1, 2, float(n), float(revision)) for n in numbers]
            await index.apply(CUBE, DIMENSION, IndexBatch(revision - 1, revision, contents, versions))
        now = await index.indexed_revision(CUBE)
        fresh = 0

        async def first(number: int) -> Any:
            """Searches with nothing remembered of the revision: `granted` differs each time and is of no effect."""
            nonlocal fresh
            fresh += 1
            query = IndexQuery(
                now, ACTIVE, 4, {uid(fresh): 1}, terms=corpus.questions[number], vector=corpus.asked[number]
            )
            return await index.search(CUBE, query)

        result["history"], _ = await compare(
            {
                "present": ask(now, words=True, vector=True, depth=200),
                "as of": ask(head, words=True, vector=True, depth=200),
                "present, nothing cached": first,
            },
            rounds,
        )
        # Its only cube; half of its contents have a newer one beside them.
        result["memory"] = {"memory_mb": index._bytes / 2**20, "contents": size + (size + 1) // 2}
        start = time.perf_counter()
        await index.close()
        build["index: save"] = time.perf_counter() - start
        again = EmbeddedIndex(folder)
        await again.open()
        start = time.perf_counter()
        await again.indexed_revision(CUBE)
        build["index: load"] = time.perf_counter() - start
        files = (Path(folder) / "index" / CUBE).iterdir()
        result["memory"]["disk_mb"] = sum(file.stat().st_size for file in files) / 2**20
        await again.close()
    return result


def show(result: dict[str, Any]) -> None:
    """Prints the tables of one size."""
    print(f"\n{result['size']:,} contents x {DIMENSION}")
    for part in ("vectors", "words", "hybrid", "history"):
        for name, row in result[part].items():
            rest = "  ".join(f"{key} {value:.3f}" for key, value in row.items() if not key.endswith("_ms"))
            print(f"  {part:8} {name:26} p50 {row['p50_ms']:8.2f} ms  p95 {row['p95_ms']:8.2f} ms  {rest}")
    row = result["apply_1000"]
    print(f"  apply    {'1,000 new contents':26} p50 {row['p50_ms']:8.2f} ms  max {row['max_ms']:8.2f} ms")
    for name, seconds in result["build_s"].items():
        print(f"  build    {name:26} {seconds:8.2f} s")
    print("  size     " + "  ".join(f"{key} {value:,.0f}" for key, value in result["memory"].items()))


def main() -> None:
    """Runs the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--no-hnsw", action="store_true", help="leave out HNSW, whose build takes minutes")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    results = []
    for size in arguments.sizes:
        results.append(asyncio.run(measure(size, arguments.rounds, not arguments.no_hnsw)))
        show(results[-1])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
