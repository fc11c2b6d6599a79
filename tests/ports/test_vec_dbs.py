"""What every search index must do: the contract of memos_server/vec_dbs/base.py, with every backend as a parameter.

To add a backend of this tree, add it to BACKENDS, or to ENGINES when it needs a running service. Those of installed
packages are found (tests/ports/plugged.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from hypothesis import given, settings
from hypothesis import strategies as st

from memos_server.vec_dbs.base import (
    OPEN,
    All,
    Compare,
    HasFacet,
    IndexBatch,
    IndexContent,
    IndexEntry,
    IndexQuery,
    IndexResult,
    IndexVersion,
    Not,
    Predicate,
    SearchIndex,
    Some,
    StateIn,
)
from memos_server.vec_dbs.embedded import EmbeddedIndex
from memos_server.vec_dbs.weaviate import WeaviateIndex
from tests.ports.naive_index import NaiveIndex
from tests.ports.plugged import plugged
from tests.support import engines


@dataclass(frozen=True)
class Backend:
    """A backend under test.

    Attributes:
        name: The test's parameter.
        make: Makes it from a data folder.
        durable: What is closed and opened again from the same folder has the same revision.
        ordered: Candidates come as the reference has them, the lexical channel's first; others are compared as a set.
    """

    name: str
    make: Callable[[str], SearchIndex]
    durable: bool = True
    ordered: bool = False


BACKENDS = [
    Backend("naive", NaiveIndex, durable=False, ordered=True),
    Backend("embedded", EmbeddedIndex, ordered=True),
    Backend("embedded-eager", lambda data_dir: EmbeddedIndex(data_dir, snapshot_changes=1), ordered=True),
    *(Backend(name, make) for name, make in plugged("memos.vec_dbs").items()),
]


_folders: set[str] = set()


def weaviate_index(data_dir: str) -> SearchIndex:
    """Returns the index in Weaviate of a data folder, empty for a new one."""
    if data_dir not in _folders:
        engines.clean_weaviate("Ports")
        _folders.add(data_dir)
    return WeaviateIndex(data_dir, **engines.weaviate().config(), prefix="Ports")


ENGINES = [Backend("weaviate", weaviate_index, ordered=True)]


def parameters(*backends: Backend) -> list[ParameterSet]:
    """Returns backends as the parameters of a test; those over engines carry the marker `engines`."""
    marks = {each.name: [pytest.mark.engines] for each in ENGINES}
    return [pytest.param(each, id=each.name, marks=marks.get(each.name, [])) for each in backends]


EVERY = parameters(*BACKENDS, *ENGINES)
DURABLE = parameters(*(each for each in [*BACKENDS, *ENGINES] if each.durable))
CUBE = "0192f7a0-0000-7000-8000-00000000c0be"
EVERYTHING = All(())
HALF = 0.5
VECTORS = {
    "x": [1.0, 0, 0, 0],
    "y": [0, 1.0, 0, 0],
    "-x": [-1.0, 0, 0, 0],
    "xyzw": [HALF, HALF, HALF, HALF],
    "xy-z-w": [HALF, HALF, -HALF, -HALF],
}
"""Unit vectors whose products are exact in float32, so that equal scores are equal in every backend."""


def uid(number: int) -> str:
    return f"0192f7a0-0000-7000-8000-{number:012x}"


def key(name: str) -> bytes:
    return name.encode().ljust(32, b"\0")


def content(
    name: str,
    text: str = "",
    *,
    facets: Sequence[str] = (),
    entities: Sequence[str] = (),
    vector: str | None = None,
    **numbers: float,
) -> IndexContent:
    array = None if vector is None else np.array(VECTORS[vector], dtype=np.float32)
    return IndexContent(key(name), text.split(), tuple(facets), tuple(entities), numbers, array)


def version(number: int, revision: int, name: str | None, state: int = 1, sensitivity: int = 2) -> IndexVersion:
    named = None if name is None else key(name)
    return IndexVersion(uid(number), revision, named, state, sensitivity, 100.0 + number, 200.0 + revision)


def query(revision: int, text: str = "", vector: str | None = None, where: Predicate = EVERYTHING, depth: int = 200,
          max_sensitivity: int = 4, **more: object) -> IndexQuery:  # fmt: skip
    array = None if vector is None else np.array(VECTORS[vector], dtype=np.float32)
    base = IndexQuery(revision, where, max_sensitivity, terms=text.split(), vector=array, depth=depth)
    return replace(base, **more)  # type: ignore[arg-type]


def found(result: IndexResult) -> set[int]:
    return {int(candidate.uid[-12:], 16) for candidate in result.candidates}


def scores(result: IndexResult) -> dict[int, float]:
    return {int(candidate.uid[-12:], 16): candidate.lexical for candidate in result.candidates}


@pytest.fixture(params=EVERY)
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


@pytest.fixture
async def index(backend: Backend, tmp_path: Path) -> AsyncIterator[SearchIndex]:
    made = backend.make(str(tmp_path))
    await made.open("1")
    yield made
    await made.close()


async def one(
    index: SearchIndex, revision: int, *parts: IndexContent | IndexVersion, erased: Sequence[str] = ()
) -> None:
    """Applies the batch of one commit."""
    contents = [part for part in parts if isinstance(part, IndexContent)]
    versions = [part for part in parts if isinstance(part, IndexVersion)]
    await index.apply(CUBE, 4, IndexBatch(revision - 1, revision, contents, versions, [key(name) for name in erased]))


async def held(index: SearchIndex) -> tuple[int, list[IndexEntry]]:
    """Returns what an index holds, sorted."""
    revision, entries = await index.entries(CUBE)
    return revision, sorted(entries, key=lambda entry: (entry.uid, entry.from_revision))


async def test_a_cube_that_was_never_indexed_is_empty_at_revision_0(index: SearchIndex) -> None:
    assert await index.indexed_revision(CUBE) == 0
    result = await index.search(CUBE, query(0, "anything", "x"))
    assert (list(result.candidates), result.exhausted) == ([], True)
    assert await index.entries(CUBE) == (0, [])
    assert await index.related(CUBE, query(0), [uid(1)]) == {uid(1): {}}


async def test_a_cube_without_memories_is_searched_at_its_head(index: SearchIndex) -> None:
    await index.apply(CUBE, 4, IndexBatch(0, 1))
    await index.apply(CUBE, 4, IndexBatch(1, 3))
    for asked in (query(3), query(3, "tea", "x"), query(1, where=HasFacet("tag:tea"))):
        result = await index.search(CUBE, asked)
        assert (list(result.candidates), result.exhausted) == ([], True)
    assert await index.related(CUBE, query(3), [uid(1)]) == {uid(1): {}}
    assert await held(index) == (3, [])
    await index.apply(CUBE, 4, IndexBatch(3, 4, [content("a", "tea")], [version(1, 4, "a")]))
    assert found(await index.search(CUBE, query(4, "tea"))) == {1}


async def test_bm25_scores_are_those_of_the_formula(index: SearchIndex) -> None:
    await one(index, 1, content("a", "cat cat dog"), content("b", "cat"), content("c", "bird fish"),
              version(1, 1, "a"), version(2, 1, "b"), version(3, 1, "c"))  # fmt: skip
    result = await index.search(CUBE, query(1, "cat cat whale"))
    # N = 3, df = 2, idf = ln(1 + 1.5 / 2.5) = 0.470004, mean length 2; k1 = 0.9, b = 0.4:
    # a: 2 / (2 + 0.9 * (0.6 + 0.4 * 3 / 2)) = 0.649351; b: 1 / (1 + 0.9 * (0.6 + 0.4 * 1 / 2)) = 0.581395
    assert scores(result) == pytest.approx({1: 0.305197, 2: 0.273258}, abs=1e-6)
    assert result.lexical_top == pytest.approx(0.305197, abs=1e-6)
    assert {candidate.matched for candidate in result.candidates} == {("cat",)}
    assert {candidate.vector for candidate in result.candidates} == {None}
    assert result.exhausted


async def test_cosines_top_and_floor_are_exact(index: SearchIndex) -> None:
    await one(index, 1, content("a", vector="x"), content("b", vector="xyzw"), content("c", vector="-x"),
              content("d", "no vector"), *(version(n + 1, 1, name) for n, name in enumerate("abcd")))  # fmt: skip
    result = await index.search(CUBE, query(1, vector="x", depth=2))
    assert [(c.uid, c.vector) for c in result.candidates] == [(uid(1), 1.0), (uid(2), 0.5)]
    assert (result.vector_top, result.vector_floor, result.exhausted) == (1.0, 0.5, False)
    everything = await index.search(CUBE, query(1, vector="x", depth=3))
    assert found(everything) == {1, 2, 3}
    assert everything.exhausted


async def test_a_candidate_of_one_channel_has_its_score_in_the_other_too(index: SearchIndex) -> None:
    await one(index, 1, content("a", "cat", vector="y"), content("b", "cat dog", vector="x"), content("c", "cat"),
              *(version(n + 1, 1, name) for n, name in enumerate("abc")))  # fmt: skip
    result = await index.search(CUBE, query(1, "cat", "x", depth=1))
    by_uid = {candidate.uid: candidate for candidate in result.candidates}
    assert set(by_uid) == {uid(1), uid(2)}
    assert by_uid[uid(1)].vector == 0.0
    assert by_uid[uid(2)].lexical > 0.0
    assert not result.exhausted


async def test_without_a_channel_the_newest_are_found(index: SearchIndex) -> None:
    await one(index, 1, *(content(f"c{n}") for n in range(5)), *(version(n, 1, f"c{n}") for n in range(5)))
    result = await index.search(CUBE, query(1, depth=3))
    assert [candidate.uid for candidate in result.candidates] == [uid(4), uid(3), uid(2)]
    assert not result.exhausted


async def test_equal_scores_are_ordered_by_uid(index: SearchIndex) -> None:
    await one(index, 1, *(content(f"c{n}", "same text", vector="xyzw") for n in range(40)),
              *(version(39 - n, 1, f"c{n}") for n in range(40)))  # fmt: skip
    for text, vector in [("text", None), ("", "x")]:
        result = await index.search(CUBE, query(1, text, vector, depth=7))
        assert [candidate.uid for candidate in result.candidates] == [uid(n) for n in range(7)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (All(()), {1, 2, 3}),
        (Some(()), set()),
        (HasFacet("tag:work"), {1, 2}),
        (HasFacet("tag:unknown"), set()),
        (Not(HasFacet("tag:work")), {3}),
        (All((HasFacet("tag:work"), HasFacet("tag:urgent"))), {2}),
        (Some((HasFacet("tag:urgent"), StateIn(frozenset({3})))), {2, 3}),
        (StateIn(frozenset()), set()),
        (StateIn(frozenset({1})), {1, 2}),
        (Compare("confidence", ">=", 0.5), {2}),
        (Compare("confidence", "=", 0.25), {1}),
        (Compare("confidence", "!=", 0.25), {2}),
        (Not(Compare("confidence", "=", 0.25)), {2, 3}),
        (Compare("valid_from", "!=", 1.0), set()),
        (Compare("create_time", "<", 102.0), {1}),
        (Compare("create_time", "<=", 102.0), {1, 2}),
        (Compare("update_time", ">", 201.0), {3}),
    ],
)
async def test_a_filter_is_exact(index: SearchIndex, where: Predicate, expected: set[int]) -> None:
    await one(index, 1, content("a", "cat", facets=["tag:work"], vector="x", confidence=0.25),
              content("b", "cat", facets=["tag:work", "tag:urgent"], vector="y", confidence=0.75),
              version(1, 1, "a"), version(2, 1, "b"))  # fmt: skip
    await one(index, 2, content("c", "cat", vector="-x"), version(3, 2, "c", state=3))
    for text, vector in [("", None), ("cat", None), ("", "x"), ("cat", "x")]:
        assert found(await index.search(CUBE, query(2, text, vector, where))) == expected


async def test_the_past_is_found_as_it_was(index: SearchIndex) -> None:
    past = []
    await one(index, 1, content("a", "old cat", vector="x"), content("b", "cat", vector="y"),
              version(1, 1, "a"), version(2, 1, "b"))  # fmt: skip
    past.append(await index.search(CUBE, query(1, "cat", "x")))
    await one(index, 2, content("a2", "new dog cat cat", vector="y"), version(1, 2, "a2"))
    past.append(await index.search(CUBE, query(2, "cat", "x")))
    await one(index, 3, version(1, 3, "a"), version(2, 3, "b", state=4))
    past.append(await index.search(CUBE, query(3, "cat", "x")))
    await one(index, 4, content("c", "cat cat cat", vector="x"), version(3, 4, "c"))
    assert [await index.search(CUBE, query(revision, "cat", "x")) for revision in (1, 2, 3)] == past
    assert [candidate.from_revision for candidate in past[2].candidates if candidate.uid == uid(1)] == [3]


async def test_statistics_are_of_the_base_states_alone(index: SearchIndex) -> None:
    await one(index, 1, content("a", "cat"), content("b", "dog"), version(1, 1, "a"), version(2, 1, "b"))
    before = scores(await index.search(CUBE, query(1, "cat")))
    await one(index, 2, content("c", "cat cat cat"), version(3, 2, "c", state=3))
    assert scores(await index.search(CUBE, query(2, "cat", where=StateIn(frozenset({1}))))) == before
    both = await index.search(CUBE, query(2, "cat", base=frozenset({1, 3})))
    assert found(both) == {1, 3}
    assert scores(both)[1] < before[1]


async def test_a_hidden_memory_leaves_no_trace_in_a_score(index: SearchIndex) -> None:
    await one(index, 1, content("a", "cat", vector="x"), content("b", "dog", vector="y"),
              version(1, 1, "a"), version(2, 1, "b"))  # fmt: skip
    before = await index.search(CUBE, query(1, "cat", "x", max_sensitivity=2))
    await one(index, 2, content("s", "cat secret", vector="x"), version(3, 2, "s", sensitivity=4))
    after = await index.search(CUBE, query(2, "cat secret", "x", max_sensitivity=2))
    assert replace(after, revision=1) == before
    assert found(await index.search(CUBE, query(2, "secret"))) == {3}


async def test_a_grant_on_a_memory_raises_the_level_for_it_alone(index: SearchIndex) -> None:
    await one(index, 1, content("a", "cat"), content("b", "cat"), version(1, 1, "a", sensitivity=4),
              version(2, 1, "b", sensitivity=4))  # fmt: skip
    granted = {uid(1): 4, uid(2): 3, uid(9): 4}
    assert found(await index.search(CUBE, query(1, "cat", max_sensitivity=2, granted=granted))) == {1}
    lowered = await index.search(CUBE, query(1, "cat", max_sensitivity=4, granted={uid(1): 1}))
    assert found(lowered) == {1, 2}


async def test_the_stricter_of_the_label_then_and_now_holds(index: SearchIndex) -> None:
    await one(index, 1, content("a", "cat"), content("b", "cat"), version(1, 1, "a", sensitivity=2),
              version(2, 1, "b", sensitivity=4))  # fmt: skip
    await one(index, 2, version(1, 2, "a", sensitivity=4), version(2, 2, "b", sensitivity=2))
    assert found(await index.search(CUBE, query(1, "cat", max_sensitivity=2))) == set()
    assert found(await index.search(CUBE, query(2, "cat", max_sensitivity=2))) == {2}


async def test_a_batch_may_span_commits(index: SearchIndex) -> None:
    batch = IndexBatch(0, 3, [content("a", "cat"), content("b", "dog")],
                       [version(1, 1, "a"), version(1, 2, "b"), version(1, 3, "a")])  # fmt: skip
    await index.apply(CUBE, 4, batch)
    assert await held(index) == (3, [
        IndexEntry(uid(1), 1, 2, key("a"), 1, 2, b""),
        IndexEntry(uid(1), 2, 3, key("b"), 1, 2, b""),
        IndexEntry(uid(1), 3, OPEN, key("a"), 1, 2, b""),
    ])  # fmt: skip


async def test_applying_a_batch_again_changes_nothing(index: SearchIndex) -> None:
    batch = IndexBatch(0, 1, [content("a", "cat", vector="x")], [version(1, 1, "a")])
    await index.apply(CUBE, 4, batch)
    before = await index.search(CUBE, query(1, "cat", "x")), await held(index)
    await index.apply(CUBE, 4, batch)
    assert (await index.search(CUBE, query(1, "cat", "x")), await held(index)) == before


@pytest.mark.parametrize(
    "batch",
    [
        IndexBatch(2, 3),
        IndexBatch(1, 2, versions=[version(1, 2, "unknown")]),
        IndexBatch(1, 2, contents=[replace(content("n"), vector=np.ones(3, dtype=np.float32))]),
    ],
    ids=["gap", "unknown content", "dimension"],
)
async def test_a_batch_that_does_not_fit_is_refused_and_changes_nothing(index: SearchIndex, batch: IndexBatch) -> None:
    await one(index, 1, content("a", "cat", vector="x"), version(1, 1, "a"))
    with pytest.raises(ValueError):
        await index.apply(CUBE, 4, batch)
    assert await index.indexed_revision(CUBE) == 1
    assert found(await index.search(CUBE, query(1, "cat", "x"))) == {1}
    await one(index, 2, content("b", "dog"), version(2, 2, "b"))
    assert found(await index.search(CUBE, query(2))) == {1, 2}


async def test_a_revision_that_is_not_indexed_yet_is_refused(index: SearchIndex) -> None:
    await one(index, 1, content("a", "cat"), version(1, 1, "a"))
    with pytest.raises(ValueError):
        await index.search(CUBE, query(2, "cat"))
    await index.drop(CUBE)
    for asked in (index.search(CUBE, query(1)), index.related(CUBE, query(1), [uid(1)])):
        with pytest.raises(ValueError):
            await asked


async def test_an_erased_content_is_found_nowhere(index: SearchIndex) -> None:
    await one(index, 1, content("a", "pin 4417", facets=["tag:pin"], entities=["Bank"], vector="x"),
              content("b", "pin lost", entities=["Bank"], vector="y"),
              version(1, 1, "a"), version(2, 1, "b"))  # fmt: skip
    await one(index, 2, version(1, 2, None, state=5), erased=["a", "never-there"])
    for revision in (1, 2):
        for asked in (query(revision), query(revision, "pin 4417"), query(revision, vector="x")):
            assert found(await index.search(CUBE, asked)) == {2}
        assert found(await index.search(CUBE, query(revision, where=HasFacet("tag:pin")))) == set()
    assert await index.related(CUBE, query(2), [uid(1), uid(2)]) == {uid(1): {}, uid(2): {}}
    assert await held(index) == (2, [
        IndexEntry(uid(1), 1, 2, None, 1, 2, b""),
        IndexEntry(uid(1), 2, OPEN, None, 5, 2, b""),
        IndexEntry(uid(2), 1, OPEN, key("b"), 1, 2, hashlib.sha256(np.array(VECTORS["y"], "<f4").tobytes()).digest()),
    ])  # fmt: skip


async def test_memories_that_share_an_entity_are_related(index: SearchIndex) -> None:
    await one(index, 1, content("a", entities=["Ann", "Paris"]), content("b", entities=["Ann", "Paris"]),
              content("c", entities=["Ann"]), content("d", entities=["Oslo"]), content("e", entities=["Ann"]),
              *(version(n + 1, 1, name) for n, name in enumerate("abcd")),
              version(5, 1, "e", sensitivity=4))  # fmt: skip
    related = await index.related(CUBE, query(1, max_sensitivity=2), [uid(1), uid(4), uid(5), uid(77)])
    # N = 4; Ann: df = 3, ln(1 + 4 / 3) = 0.847298; Paris: df = 2, ln(1 + 4 / 2) = 1.098612
    assert related[uid(1)] == pytest.approx({uid(2): 1.945910, uid(3): 0.847298}, abs=1e-6)
    assert (related[uid(4)], related[uid(5)], related[uid(77)]) == ({}, {}, {})
    assert list(await index.related(CUBE, query(1, depth=1), [uid(1)])) == [uid(1)]
    assert set((await index.related(CUBE, query(1, depth=1), [uid(1)]))[uid(1)]) == {uid(2)}


async def test_an_entity_that_too_many_mention_relates_nothing(index: SearchIndex) -> None:
    await one(index, 1, *(content(f"c{n}", entities=["Everybody"]) for n in range(6)),
              *(version(n, 1, f"c{n}") for n in range(6)))  # fmt: skip
    assert await index.related(CUBE, query(1), [uid(1)]) == {uid(1): {}}
    only_five = Compare("create_time", "<", 105.0)
    assert len((await index.related(CUBE, query(1, where=only_five), [uid(1)]))[uid(1)]) == 4


async def test_cubes_do_not_see_each_other_and_dropping_one_leaves_the_other(index: SearchIndex) -> None:
    other = "0192f7a0-0000-7000-8000-00000000beef"
    for cube in (CUBE, other):
        await index.apply(cube, 4, IndexBatch(0, 1, [content("a", "cat", vector="x")], [version(1, 1, "a")]))
    await index.drop(CUBE)
    assert await index.indexed_revision(CUBE) == 0
    assert found(await index.search(CUBE, query(0, "cat"))) == set()
    assert found(await index.search(other, query(1, "cat"))) == {1}


async def test_a_cube_without_vectors_is_searched_by_words(index: SearchIndex) -> None:
    await index.apply(CUBE, 0, IndexBatch(0, 1, [content("a", "cat")], [version(1, 1, "a")]))
    result = await index.search(CUBE, query(1, "cat"))
    assert found(result) == {1}
    await index.apply(CUBE, 4, IndexBatch(1, 2, [content("b", vector="x")], [version(2, 2, "b")]))
    assert found(await index.search(CUBE, query(2, vector="x"))) == {2}


async def test_searches_during_a_batch_see_all_of_it_or_nothing(index: SearchIndex) -> None:
    async def fill() -> None:
        for revision in range(1, 21):
            names = [f"r{revision}-{n}" for n in range(20)]
            await one(index, revision, *(content(name, "cat", vector="x") for name in names),
                      *(version(1000 * revision + n, revision, name) for n, name in enumerate(names)))  # fmt: skip

    async def look() -> None:
        while (revision := await index.indexed_revision(CUBE)) < 20:
            for at in {revision, revision // 2}:
                assert len(found(await index.search(CUBE, query(at, "cat", "x", depth=1000)))) == 20 * at

    await asyncio.gather(fill(), look(), look())


@pytest.mark.parametrize("backend", DURABLE)
async def test_what_was_closed_is_there_when_opened_again(backend: Backend, tmp_path: Path) -> None:
    index = backend.make(str(tmp_path))
    await index.open("1")
    await one(
        index, 1, content("a", "cat", facets=["f"], entities=["E"], vector="x", confidence=1.0), version(1, 1, "a")
    )
    await one(index, 2, content("b", "cat", entities=["E"]), version(2, 2, "b", sensitivity=3))
    asked = query(2, "cat", "x", where=Some((HasFacet("f"), Compare("create_time", ">", 0.0))))
    before = await index.search(CUBE, asked), await index.related(CUBE, asked, [uid(1)]), await held(index)
    await index.close()
    again = backend.make(str(tmp_path))
    await again.open("1")
    assert await again.indexed_revision(CUBE) == 2
    assert before == (
        await again.search(CUBE, asked), await again.related(CUBE, asked, [uid(1)]), await held(again)
    )  # fmt: skip
    await one(again, 3, content("c", "cat"), version(1, 3, "c"))
    assert found(await again.search(CUBE, query(3, "cat"))) == {1, 2}
    await again.close()


def files(folder: Path) -> list[Path]:
    """Returns the files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("backend", DURABLE)
async def test_an_erased_content_is_in_no_file_once_the_batch_is_applied(backend: Backend, tmp_path: Path) -> None:
    index = backend.make(str(tmp_path))
    await index.open("1")
    for revision in range(1, 4):
        parts = [content(f"c{revision}-{n}", f"word{n} secret{n % 7}kept", facets=[f"f{n}"]) for n in range(100)]
        versions = [version(1000 * revision + n, revision, f"c{revision}-{n}") for n in range(100)]
        pin = content(f"pin{revision}", "quux4417 " * 3, facets=["tag:quux4417"], entities=["Quux4417"], vector="xyzw")
        await one(index, revision, *parts, pin, *versions, version(revision, revision, f"pin{revision}"))
    # Everything is on disk before it is erased.
    await index.close()
    index = backend.make(str(tmp_path))
    await index.open("1")
    await one(index, 4, *(version(n, 4, None, state=5) for n in (1, 2, 3)), erased=["pin1", "pin2", "pin3"])
    vector = np.array(VECTORS["xyzw"], "<f4").tobytes()
    for path in files(tmp_path):
        held_bytes = path.read_bytes()
        assert b"quux4417" not in held_bytes.lower(), path.name
        assert vector not in held_bytes, path.name
    await index.close()


@pytest.mark.parametrize("backend", DURABLE)
@pytest.mark.parametrize("damage", ["empty", "cut off", "noise"])
async def test_what_is_damaged_is_dropped_and_can_be_filled_again(
    backend: Backend, damage: str, tmp_path: Path
) -> None:
    batches = [IndexBatch(n, n + 1, [content(f"c{n}", "cat", vector="x")], [version(n, n + 1, f"c{n}")])
               for n in range(3)]  # fmt: skip
    index = backend.make(str(tmp_path))
    await index.open("1")
    for batch in batches:
        await index.apply(CUBE, 4, batch)
    await index.close()
    for path in files(tmp_path):
        size = path.stat().st_size
        path.write_bytes({"empty": b"", "cut off": path.read_bytes()[: size // 2], "noise": b"\x5a" * size}[damage])
    again = backend.make(str(tmp_path))
    await again.open("1")
    assert await again.indexed_revision(CUBE) in (0, 3)
    for batch in batches:
        await again.apply(CUBE, 4, batch)
    assert found(await again.search(CUBE, query(3, "cat", "x"))) == {0, 1, 2}
    await again.close()


WORDS = st.lists(st.sampled_from(["cat", "dog", "bird", "fish", "the"]), max_size=5)
PREDICATES: st.SearchStrategy[Predicate] = st.recursive(
    st.one_of(
        st.sampled_from(["f", "g", "absent"]).map(HasFacet),
        st.frozensets(st.integers(1, 4), max_size=2).map(StateIn),
        st.builds(
            Compare,
            st.sampled_from(["confidence", "create_time", "update_time", "absent"]),
            st.sampled_from(["<", "<=", ">", ">=", "=", "!="]),
            st.sampled_from([0.5, 103.0, 203.0]),
        ),
    ),
    lambda parts: st.one_of(
        st.lists(parts, max_size=3).map(lambda chosen: All(tuple(chosen))),
        st.lists(parts, max_size=3).map(lambda chosen: Some(tuple(chosen))),
        parts.map(Not),
    ),
    max_leaves=4,
)


@st.composite
def histories(draw: st.DrawFn) -> list[IndexBatch]:
    """Batches of adds, updates, state and label changes, reuse of earlier contents (rollback) and purges."""
    batches: list[IndexBatch] = []
    owned: dict[int, list[str]] = {}
    revision = 0
    for _ in range(draw(st.integers(1, 6))):
        start, contents, versions, erased = revision, [], [], []
        for _ in range(draw(st.integers(1, 2))):
            revision += 1
            for number in draw(st.sets(st.integers(1, 6), min_size=1, max_size=4)):
                names = owned.setdefault(number, [])
                action = draw(st.sampled_from(["new", "new", "reuse", "purge"]))
                if action == "purge" and names and revision == start + 1:
                    erased += [key(name) for name in names if key(name) not in {c.key for c in contents}]
                    names[:] = [name for name in names if key(name) in {c.key for c in contents}]
                    versions.append(version(number, revision, None, 5, 1))
                    continue
                if action == "new" or not names:
                    names.append(f"{number}@{revision}")
                    contents.append(
                        replace(
                            content(names[-1], facets=draw(st.sets(st.sampled_from("fg")).map(sorted))),
                            terms=draw(WORDS),
                            entities=draw(st.sets(st.sampled_from(["Ann", "Bob"])).map(sorted)),
                            numbers=draw(st.sampled_from([{}, {"confidence": 0.5}, {"confidence": 1.0}])),
                            vector=draw(st.sampled_from([None, *(np.array(v, np.float32) for v in VECTORS.values())])),
                        )
                    )
                state, label = draw(st.integers(1, 4)), draw(st.integers(1, 4))
                versions.append(version(number, revision, draw(st.sampled_from(names)), state, label))
        batches.append(IndexBatch(start, revision, contents, versions, erased))
    return batches


QUERIES = st.builds(
    IndexQuery,
    revision=st.integers(0, 12),
    where=PREDICATES,
    max_sensitivity=st.integers(1, 4),
    granted=st.dictionaries(st.integers(1, 7).map(uid), st.integers(1, 4), max_size=2),
    base=st.frozensets(st.integers(1, 4), min_size=1, max_size=2),
    terms=WORDS,
    vector=st.sampled_from([None, *(np.array(v, np.float32) for v in VECTORS.values())]),
    depth=st.integers(1, 8),
)


def same(expected: IndexResult, actual: IndexResult, backend: Backend) -> None:
    """Compares two results: scores to 1e-5, candidates in order where the backend keeps one."""
    assert actual.revision == expected.revision
    assert actual.exhausted == expected.exhausted
    for name in ("lexical_top", "vector_top", "vector_floor"):
        assert getattr(actual, name) == pytest.approx(getattr(expected, name), abs=1e-5)
    mine, theirs = list(actual.candidates), list(expected.candidates)
    if not backend.ordered:
        mine, theirs = (sorted(part, key=lambda c: c.uid) for part in (mine, theirs))
    assert [(c.uid, c.from_revision, c.matched) for c in mine] == [(c.uid, c.from_revision, c.matched) for c in theirs]
    for one_, other in zip(mine, theirs, strict=True):
        assert one_.lexical == pytest.approx(other.lexical, abs=1e-5)
        assert one_.vector == (None if other.vector is None else pytest.approx(other.vector, abs=1e-5))


async def _check_history(
    backend: Backend, folder: str, batches: Sequence[IndexBatch], queries: Sequence[IndexQuery]
) -> None:
    model, index = NaiveIndex(), backend.make(folder)
    await index.open("1")
    for number, batch in enumerate(batches):
        for each in (model, index):
            await each.apply(CUBE, 4, batch)
        if backend.durable and number % 2:
            await index.close()
            index = backend.make(folder)
            await index.open("1")
            await index.apply(CUBE, 4, batch)
        assert await index.indexed_revision(CUBE) == batch.to_revision
        for asked in queries:
            at = replace(asked, revision=min(asked.revision, batch.to_revision))
            same(await model.search(CUBE, at), await index.search(CUBE, at), backend)
            related = await index.related(CUBE, at, [uid(1), uid(2)])
            for one_, weights in (await model.related(CUBE, at, [uid(1), uid(2)])).items():
                assert related[one_] == pytest.approx(weights, abs=1e-5)
            assert await held(index) == await held(model)
    await index.close()


@pytest.mark.parametrize("backend", EVERY[1:])
@settings(max_examples=60, deadline=None)
@given(batches=histories(), queries=st.lists(QUERIES, min_size=1, max_size=4))
def test_any_history_is_searched_as_the_reference_does(
    backend: Backend, batches: list[IndexBatch], queries: list[IndexQuery]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_check_history(backend, folder, batches, queries))
