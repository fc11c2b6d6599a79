"""The index in Weaviate where it is not like the others: many servers, many cubes, odd words, lost and partial writes.

The contract of all indexes is tests/ports/test_vec_dbs.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.vec_dbs.base import HasFacet, IndexBatch, IndexResult, IndexVersion
from memos_server.vec_dbs.weaviate import WeaviateIndex, applying, reading, searching, statistics, writing
from memos_server.vec_dbs.weaviate.heads import Head
from memos_server.vec_dbs.weaviate.rows import Row
from tests.ports.naive_index import NaiveIndex
from tests.ports.test_vec_dbs import CUBE, Backend, content, found, held, key, one, query, same, uid, version
from tests.support import engines

pytestmark = pytest.mark.engines

ORDERED = Backend("weaviate", lambda folder: NaiveIndex(folder), ordered=True)


@pytest.fixture
def config() -> dict[str, Any]:
    return engines.clean_weaviate("Edges")


def history(batches: int, size: int = 5) -> list[IndexBatch]:
    """Batches that add memories, change earlier ones, their labels too, and purge one."""
    made = []
    for revision in range(1, batches + 1):
        names = [f"r{revision}-{n}" for n in range(size)]
        contents = [content(name, f"cat w{n} w{revision % 3}", facets=["f"] if n % 2 else [], entities=[f"E{n}"],
                            vector=["x", "y", "xyzw"][n % 3]) for n, name in enumerate(names)]  # fmt: skip
        versions = [version(100 * revision + n, revision, name) for n, name in enumerate(names)]
        erased: list[bytes] = []
        if revision > 1:
            # The first of the batch before changes its content, the second its label.
            contents.append(content(f"again{revision}", "dog w1", vector="y"))
            before = 100 * (revision - 1)
            versions.append(version(before, revision, f"again{revision}"))
            versions.append(version(before + 1, revision, f"r{revision - 1}-1", sensitivity=1 + revision % 4))
        if revision == 4:
            versions.append(version(102, revision, None, state=5))
            erased.append(key("r1-2"))
        made.append(IndexBatch(revision - 1, revision, contents, versions, erased))
    return made


async def reference(batches: Sequence[IndexBatch]) -> NaiveIndex:
    model = NaiveIndex()
    for batch in batches:
        await model.apply(CUBE, 4, batch)
    return model


async def agree(model: NaiveIndex, index: WeaviateIndex, revision: int, clearances: Sequence[int] = (2, 4)) -> None:
    """Compares what two indexes hold and find."""
    assert await held(index) == await held(model)  # type: ignore[arg-type]
    for at in {1, revision // 2, revision} - {0}:
        for clearance in clearances:
            asked = query(at, "cat w1", "x", max_sensitivity=clearance)
            same(await model.search(CUBE, asked), await index.search(CUBE, asked), ORDERED)


async def test_two_servers_that_apply_the_same_batches_at_once_leave_what_one_does(
    index: WeaviateIndex, other: WeaviateIndex
) -> None:
    batches = history(8)

    async def bring(server: WeaviateIndex) -> None:
        for batch in batches:
            for _ in range(5):
                with contextlib.suppress(MipError):
                    await server.apply(CUBE, 4, batch)
                    break

    await asyncio.gather(bring(index), bring(other))
    model = await reference(batches)
    for server in (index, other):
        await agree(model, server, 8)


async def test_a_server_that_is_late_undoes_nothing(
    index: WeaviateIndex, other: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = history(6)
    for batch in batches[:2]:
        await index.apply(CUBE, 4, batch)
    write, passed = writing.Writer.write, False

    async def late(self: writing.Writer, *args: Any, **more: Any) -> None:
        nonlocal passed
        if self is index._writer and not passed:
            passed = True
            # The other server is through with this batch and three more, with a purge, before this one writes.
            for batch in batches[2:]:
                await other.apply(CUBE, 4, batch)
        await write(self, *args, **more)

    monkeypatch.setattr(writing.Writer, "write", late)
    await index.apply(CUBE, 4, batches[2])
    assert passed
    await agree(await reference(batches), index, 6)


async def test_a_batch_that_begins_before_where_another_server_came_is_taken_from_there(
    index: WeaviateIndex, other: WeaviateIndex
) -> None:
    batches = history(3)
    await index.apply(CUBE, 4, batches[0])
    await other.apply(CUBE, 4, batches[1])
    both = IndexBatch(1, 3, [*batches[1].contents, *batches[2].contents], [*batches[1].versions, *batches[2].versions])
    await index.apply(CUBE, 4, both)
    await agree(await reference(batches), other, 3)


async def test_what_weaviate_says_it_wrote_and_did_not_is_written_again(
    index: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, lost = writing.Writer.write, 0

    async def lossy(self: writing.Writer, cube: str, place: Any, rows: Sequence[Row], *, empty: bool = False) -> None:
        nonlocal lost
        lost += not empty
        await write(self, cube, place, rows if empty or not lost % 2 else rows[2:], empty=empty)

    monkeypatch.setattr(writing.Writer, "write", lossy)
    batches = history(5)
    for batch in batches:
        await index.apply(CUBE, 4, batch)
    await agree(await reference(batches), index, 5)


async def test_an_index_that_stays_incomplete_is_not_called_indexed(
    index: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = history(2)
    await index.apply(CUBE, 4, first)
    with monkeypatch.context() as patched:
        write = writing.Writer.write
        patched.setattr(
            writing.Writer, "write", lambda self, cube, place, rows, **more: write(self, cube, place, rows[1:], **more)
        )
        with pytest.raises(MipError, match=r"BACKEND_UNAVAILABLE: Weaviate reported objects as written .* open files"):
            await index.apply(CUBE, 4, second)
    assert await index.indexed_revision(CUBE) == 1
    same(await (await reference([first])).search(CUBE, query(1, "cat", "x")),
         await index.search(CUBE, query(1, "cat", "x")), ORDERED)  # fmt: skip
    await index.apply(CUBE, 4, second)
    await agree(await reference([first, second]), index, 2)


async def test_an_object_that_weaviate_refuses_keeps_the_batch_from_counting(
    index: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = history(2)
    await index.apply(CUBE, 4, first)
    to_object = writing.to_object

    def spoilt(cube: str, row: Row) -> Any:
        made = to_object(cube, row)
        if row.uid == uid(201):
            made.vector = [1.0, 0.0]
        return made

    with monkeypatch.context() as patched:
        patched.setattr(writing, "to_object", spoilt)
        with pytest.raises(MipError, match="BACKEND_UNAVAILABLE: Weaviate refused 1 of"):
            await index.apply(CUBE, 4, second)
    assert await index.indexed_revision(CUBE) == 1
    await index.apply(CUBE, 4, second)
    await agree(await reference([first, second]), index, 2)


async def test_an_index_that_another_server_dropped_is_noticed_by_the_next_search(
    index: WeaviateIndex, other: WeaviateIndex
) -> None:
    for batch in history(3):
        await index.apply(CUBE, 4, batch)
    assert found(await index.search(CUBE, query(3, "cat")))
    await other.drop(CUBE)
    with pytest.raises(ValueError):
        await index.search(CUBE, query(3, "cat"))
    assert await index.indexed_revision(CUBE) == 0


async def test_a_tenant_that_is_lost_is_filled_anew(index: WeaviateIndex) -> None:
    batches = history(3)
    for batch in batches:
        await index.apply(CUBE, 4, batch)
    await index._tenants.remove(index._collections.memories(4), CUBE)
    with pytest.raises(ValueError):
        await index.search(CUBE, query(3, "cat"))
    assert await index.indexed_revision(CUBE) == 0
    for batch in batches:
        await index.apply(CUBE, 4, batch)
    await agree(await reference(batches), index, 3)


async def test_no_more_cubes_are_loaded_than_set_and_the_others_come_back(config: dict[str, Any]) -> None:
    index = WeaviateIndex("", **config, active_tenants=3)
    await index.open("1")
    cubes = [f"0192f7a0-0000-7000-8000-0000000c{n:04x}" for n in range(10)]
    for number, cube in enumerate(cubes):
        batch = IndexBatch(0, 1, [content("a", f"cat w{number}", vector="x")], [version(number, 1, "a")])
        await index.apply(cube, 4, batch)

    async def loaded() -> int:
        await index._tenants.close()
        collection = index._collections.memories(4)
        tenants = await index._connection.ask(lambda client: client.collections.use(collection).tenants.get())
        return sum(tenant.activity_status.name == "ACTIVE" for tenant in tenants.values())

    assert await loaded() <= 3
    for number, cube in enumerate(cubes):
        assert found(await index.search(cube, query(1, "cat", "x"))) == {number}
    assert await loaded() <= 3
    # At once, more than may be loaded.
    answers: list[IndexResult] = await asyncio.gather(*(index.search(cube, query(1, "cat")) for cube in cubes))
    assert [found(answer) for answer in answers] == [{number} for number in range(10)]
    assert await loaded() <= 3
    await index.close()
    # A server that starts counts what is loaded.
    again = WeaviateIndex("", **config, active_tenants=1)
    await again.open("1")
    assert again._tenants.loaded <= 1
    await again.close()


async def test_words_and_tokens_may_be_anything(index: WeaviateIndex) -> None:
    odd = ["a b", "a", " a", "a ", "A", "*", "a*", "?", "", "é", "e\u0301", "\u00a0", "the", "NOT", "tag:ü\u2028x",
           "l" * 5000, "l" * 4999 + "m", "\0", '"x"', "f:a.", "a."]  # fmt: skip
    parts = [replace(content(f"c{n}", facets=[text], entities=[text]), terms=[text, "same"]) for n, text in
             enumerate(odd)]  # fmt: skip
    await one(index, 1, *parts, *(version(n, 1, f"c{n}") for n in range(len(odd))))
    for number, text in enumerate(odd):
        assert found(await index.search(CUBE, query(1, where=HasFacet(text)))) == {number}, text[:9]
        result = await index.search(CUBE, replace(query(1), terms=(text,)))
        assert found(result) == {number}, text[:9]
        assert result.candidates[0].matched == (text,)
    assert await index.related(CUBE, query(1), [uid(1)]) == {uid(1): {}}


async def test_what_is_deeper_than_an_answer_of_weaviate_is_found_all_the_same(
    index: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = history(6)
    for batch in batches:
        await index.apply(CUBE, 4, batch)
    model = await reference(batches)
    monkeypatch.setattr(searching, "MOST", 12)
    for module in (reading, applying):
        monkeypatch.setattr(module, "MOST", 12)
    for where in (query(1).where, HasFacet("f")):
        for asked in (query(6, "cat w1", "x", where=where), query(6, where=where), query(3, "dog", where=where)):
            same(await model.search(CUBE, asked), await index.search(CUBE, asked), ORDERED)
    more = history(8)[6:]
    for batch in more:
        await index.apply(CUBE, 4, batch)
        await model.apply(CUBE, 4, batch)
    await agree(model, index, 8)


async def test_statistics_that_were_kept_follow_what_is_written(
    index: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = NaiveIndex()
    counted = 0
    count = statistics.Statistics._count

    async def counting(self: statistics.Statistics, *args: Any) -> int:
        nonlocal counted
        counted += 1
        return await count(self, *args)

    monkeypatch.setattr(statistics.Statistics, "_count", counting)
    for batch in history(8):
        for each in (model, index):
            await each.apply(CUBE, 4, batch)
        # Few enough are asked for that the statistics are not simply all that came.
        for granted in ({}, {uid(101): 4}):
            for at in {batch.to_revision, max(batch.to_revision - 1, 1)}:
                asked = query(at, "cat w1 w2", max_sensitivity=2, granted=granted, depth=2)
                expected, actual = await model.search(CUBE, asked), await index.search(CUBE, asked)
                assert actual.lexical_top == pytest.approx(expected.lexical_top, abs=1e-6)
    # Three terms, counted when they were first asked for, and anew after the purge.
    assert counted <= 9


async def test_versions_of_what_is_indexed_have_an_index_each(config: dict[str, Any]) -> None:
    old, new = WeaviateIndex("", **config), WeaviateIndex("", **config)
    await old.open("1")
    await new.open("2")
    await old.apply(CUBE, 4, history(1)[0])
    assert (await old.indexed_revision(CUBE), await new.indexed_revision(CUBE)) == (1, 0)
    await old.close()
    await new.close()


async def test_a_wrong_key_keeps_the_server_from_starting_and_is_in_no_message(config: dict[str, Any]) -> None:
    index = WeaviateIndex("", **config | {"api_key": "wr0ng-key"})
    with pytest.raises(SetupError) as caught:
        await index.open("1")
    assert "api_key" in str(caught.value)
    assert "wr0ng-key" not in str(caught.value) + repr(index._config)
    await index.close()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"host": "http://x"}, "host must be"),
        ({"http_port": 0}, "between 1 and 65535"),
        ({"http_port": 50051}, "must differ"),
        ({"prefix": "lower"}, "capital letter"),
        ({"api_key": "a", "api_key_file": "b"}, "exclude one another"),
        ({"ca_file": "x"}, "tls = true"),
        ({"active_tenants": 0}, "at least 1"),
        ({"timeout_s": 0}, "positive"),
        ({"b": 2.0}, "between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WeaviateIndex("", **wrong)


async def test_heads_that_dead_servers_left_are_tidied_and_the_furthest_counts(
    index: WeaviateIndex, config: dict[str, Any]
) -> None:
    await index._collections.make_heads()
    for revision in range(1, 13):
        dead = WeaviateIndex("", **config)
        await dead.open("1")
        await dead._heads.write(CUBE, Head(revision, 4))
        await dead.close()
    assert (await index._heads.read(CUBE)).revision == 12
    assert len(await index._heads._all(CUBE)) == 12
    await index._heads.write(CUBE, Head(64, 4))
    assert len(await index._heads._all(CUBE)) == 1
    assert (await index._heads.read(CUBE)).revision == 64


async def test_a_probe_says_that_it_works_and_a_purged_content_is_nowhere(index: WeaviateIndex) -> None:
    await index.probe()
    for batch in history(4):
        await index.apply(CUBE, 4, batch)
    place = (index._collections.memories(4), CUBE)
    rows = await index._reader.found(place, None, ["row", "terms", "tokens"])
    assert key("r1-2") not in {row.content for row in rows}
    gone = IndexVersion(uid(102), 5, key("r1-2"), 1, 2, 0.0, 0.0)
    with pytest.raises(ValueError, match="not in the index"):
        await index.apply(CUBE, 4, IndexBatch(4, 5, [], [gone]))


def test_a_cube_that_nobody_writes_to_settles_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("memos_server.vec_dbs.weaviate.heads.time.time", lambda: now)
    head = Head()
    for revision in range(1, 400):
        now += 1.0
        head = Head(revision=revision, marks=head.marked(revision))
        assert len(head.marks) <= 12
        # What is older than 150 s counts as settled, but for the nineteen seconds that marks are apart.
        assert max(0, revision - 150 - 20) <= head.settled() <= max(0, revision - 150)
    now += 149.0
    assert head.settled() < 399
    now += 2.0
    assert head.settled() == 399, "the last write settles too"
