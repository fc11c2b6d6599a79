"""Search finds the same over Weaviate as in this process: the same hits, nearly, with the same scores exactly.

MEMOS_TEST_TEXTS names a folder of data sets in the form of benches/retrieval.py, for natural texts; else they are made.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from memos_server.memories.analysis import analyze
from memos_server.vec_dbs.base import (
    All,
    Candidate,
    Compare,
    HasFacet,
    IndexBatch,
    IndexContent,
    IndexQuery,
    IndexResult,
    IndexVersion,
    Not,
    Predicate,
    SearchIndex,
    StateIn,
)
from memos_server.vec_dbs.embedded import EmbeddedIndex
from memos_server.vec_dbs.weaviate import WeaviateIndex
from tests.ports.test_vec_dbs import CUBE, uid
from tests.support import engines

pytestmark = [pytest.mark.engines, pytest.mark.asyncio(loop_scope="module")]

MEMORIES, QUERIES, DIMENSION = 3000, 40, 64
ACTIVE = StateIn(frozenset({1}))


def texts() -> tuple[list[list[str]], list[list[str]]]:
    """Returns the terms of memories and of queries."""
    rng = np.random.default_rng(11)
    if folder := os.environ.get("MEMOS_TEST_TEXTS"):
        items: list[str] = []
        questions: list[str] = []
        for path in sorted(Path(folder).glob("*.json")):
            for collection in json.loads(path.read_text(encoding="utf-8"))["collections"]:
                items += [item["text"][:600] for item in collection["items"]]
                questions += [question["text"] for question in collection["questions"]]
        chosen, asked = rng.permutation(len(items))[:MEMORIES], rng.permutation(len(questions))[:QUERIES]
        return [analyze(items[n]) for n in chosen], [analyze(questions[n]) for n in asked]
    weights = 1.0 / np.arange(1, 8001) ** 0.95
    lengths = rng.integers(4, 60, MEMORIES)
    drawn = [rng.choice(8000, size=n, p=weights / weights.sum()) for n in lengths]
    # A question has some of a memory's words, and a few of its own.
    asked = [[*rng.choice(drawn[n], 4), *rng.choice(8000, 2, p=weights / weights.sum())] for n in range(QUERIES)]
    return [[f"w{n}" for n in words] for words in drawn], [[f"w{n}" for n in words] for words in asked]


def embedded(terms: Sequence[Sequence[str]], seed: int) -> list[NDArray[np.float32]]:
    """Returns vectors that are near where words are shared."""
    noise = np.random.default_rng(seed)
    of_word: dict[str, NDArray[np.float64]] = {}
    found = []
    for words in terms:
        total = noise.normal(size=DIMENSION) * 0.5
        for word in words:
            if word not in of_word:
                of_word[word] = np.random.default_rng(list(word.encode())).normal(size=DIMENSION)
            total += of_word[word]
        found.append((total / np.linalg.norm(total)).astype(np.float32))
    return found


def batches(terms: Sequence[Sequence[str]]) -> list[IndexBatch]:
    """Adds all memories; then archives some, changes some, and raises the label of some."""
    keys = [n.to_bytes(32, "big") for n in range(2 * len(terms))]
    vectors = embedded(terms, 1)
    contents = [
        IndexContent(keys[n], words, (f"tag:{n % 7}",), (), {"confidence": n % 10 / 10}, vectors[n])
        for n, words in enumerate(terms)
    ]

    def version(n: int, revision: int, content: int, state: int = 1, label: int = 2) -> IndexVersion:
        return IndexVersion(uid(n), revision, keys[content], state, label, float(n), float(revision))

    made = []
    for revision, at in enumerate(range(0, len(terms), 1000), start=1):
        part = contents[at : at + 1000]
        made.append(
            IndexBatch(revision - 1, revision, part, [version(n, revision, n) for n in range(at, at + len(part))])
        )
    last = made[-1].to_revision
    other = [IndexContent(keys[len(terms) + n], terms[n + 1], ("tag:new",), (), {}, vectors[n + 1])
             for n in range(0, 300, 3)]  # fmt: skip
    changed = [version(n, last + 1, len(terms) + n) for n in range(0, 300, 3)]
    archived = [version(n, last + 1, n, state=3) for n in range(1000, 1100)]
    raised = [version(n, last + 1, n, label=4) for n in range(2000, 2100)]
    return [*made, IndexBatch(last, last + 1, other, [*changed, *archived, *raised])]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[SearchIndex, SearchIndex, int, list[list[str]]]]:
    """The two indexes with the same in them, their revision, and the queries."""
    memories, asked = texts()
    here = EmbeddedIndex(str(tmp_path_factory.mktemp("agreement")))
    there = WeaviateIndex("", **engines.clean_weaviate("Agreement"))
    revision = 0
    for index in (here, there):
        await index.open("1")
        for batch in batches(memories):
            await index.apply(CUBE, DIMENSION, batch)
            revision = batch.to_revision
    yield here, there, revision, asked
    await there.close()
    await here.close()


def best(result: IndexResult, channel: str, count: int) -> set[str]:
    """Returns the best of one channel."""

    def score(candidate: Candidate) -> float:
        return candidate.lexical if channel == "lexical" else candidate.vector or 0.0

    found = [each for each in result.candidates if channel == "vector" or each.matched]
    return {each.uid for each in sorted(found, key=lambda each: (-score(each), each.uid))[:count]}


def overlaps(pairs: Sequence[tuple[IndexResult, IndexResult]], channel: str, count: int) -> float:
    """Returns the mean share of the best hits that both have."""
    shares = []
    for one, other in pairs:
        expected = best(one, channel, count)
        shares.append(len(expected & best(other, channel, count)) / len(expected) if expected else 1.0)
    return mean(shares)


@pytest.mark.parametrize(
    ("where", "back", "clearance", "depth"),
    [
        (ACTIVE, 0, 4, 200),
        (ACTIVE, 0, 2, 20),
        (All((HasFacet("tag:3"), ACTIVE)), 0, 4, 200),
        (All((Not(HasFacet("tag:3")), Compare("confidence", ">=", 0.7))), 0, 2, 200),
        (ACTIVE, 1, 4, 200),
        (ACTIVE, 2, 2, 200),
    ],
    ids=["all", "a clearance", "a tag", "not a tag, a number, any state", "the revision before", "an old one"],
)
async def test_hits_and_scores_agree(
    both: tuple[SearchIndex, SearchIndex, int, list[list[str]]],
    where: Predicate,
    back: int,
    clearance: int,
    depth: int,
) -> None:
    here, there, revision, asked = both
    pairs = []
    for words, vector in zip(asked, embedded(asked, 2), strict=True):
        query = IndexQuery(revision - back, where, clearance, terms=words, vector=vector, depth=depth)
        pairs.append((await here.search(CUBE, query), await there.search(CUBE, query)))
    assert overlaps(pairs, "vector", 10) >= 0.95
    assert overlaps(pairs, "lexical", 10) >= 0.85
    for one, other in pairs:
        assert other.exhausted == one.exhausted
        known = {each.uid: each for each in one.candidates}
        for each in other.candidates:
            if each.uid in known:
                expected = known[each.uid]
                assert (each.from_revision, each.matched) == (expected.from_revision, expected.matched)
                assert each.lexical == pytest.approx(expected.lexical, abs=1e-5)
                assert each.vector == pytest.approx(expected.vector, abs=1e-5)


@pytest.mark.parametrize("back", [0, 1, 2])
@pytest.mark.parametrize(
    "where",
    [
        ACTIVE,
        All((HasFacet("tag:3"), ACTIVE)),
        Not(HasFacet("tag:3")),
        Compare("confidence", "!=", 0.5),
        All((Compare("create_time", "<", 1500.0), StateIn(frozenset({3})))),
    ],
)
async def test_filters_and_the_past_leave_exactly_the_same(
    both: tuple[SearchIndex, SearchIndex, int, list[list[str]]], where: Predicate, back: int
) -> None:
    here, there, revision, _ = both
    for clearance in (2, 4):
        query = IndexQuery(revision - back, where, clearance, depth=5000)
        one, other = await here.search(CUBE, query), await there.search(CUBE, query)
        assert [each[:2] for each in other.candidates] == [each[:2] for each in one.candidates]
        assert (one.exhausted, other.exhausted) == (True, True)
