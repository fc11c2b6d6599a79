"""A commit whose answer is lost: what became of it is found out from what it left, and it is never done twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from neo4j import AsyncSession
from neo4j.exceptions import DatabaseUnavailable

from memos_server.errors import MipError
from memos_server.graph_dbs.base import AuditRow, JobRow, Kind, Reader, RequestKey, RequestRow, Writer
from memos_server.graph_dbs.neo4j import Neo4jRecordStore, statements, units
from tests.engines.bolt_cut import BoltCut
from tests.ports.records import OWNER, append, commit, create, memory
from tests.support import engines

pytestmark = pytest.mark.engines

KEY = RequestKey(OWNER, "AddMemories", "cubes/c", "r")


@pytest.fixture
def config() -> dict[str, Any]:
    return engines.clean_neo4j()


@pytest.fixture
async def cut(config: dict[str, Any]) -> AsyncIterator[BoltCut]:
    made = BoltCut(config["uri"])
    yield made
    await made.stop()


@pytest.fixture
async def store(config: dict[str, Any], cut: BoltCut) -> AsyncIterator[Neo4jRecordStore]:
    opened = Neo4jRecordStore("", **config | {"uri": await cut.start()})
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def other(config: dict[str, Any]) -> AsyncIterator[Neo4jRecordStore]:
    """Another server, whose way to the database nobody cuts."""
    opened = Neo4jRecordStore("", **config)
    await opened.open()
    yield opened
    await opened.close()


async def heads(store: Neo4jRecordStore) -> tuple[int, list[str]]:
    """Returns the head of the cube and the ids of its memories."""

    async def look(txn: Reader) -> tuple[int, list[str]]:
        cube = await txn.cube("c")
        assert cube is not None
        commits = await txn.commits(cube.key, 1, 999, 999, newest_first=False)
        assert [row.revision for row in commits] == list(range(1, cube.revision + 1))
        return cube.revision, [row.id for row in await txn.list_versions(cube.key, Kind.MEMORY, 0, 99)]

    return await store.read(look)


@pytest.mark.parametrize(("where", "runs"), [("before", 2), ("after", 1)])
async def test_a_commit_whose_answer_is_lost_is_made_once(
    store: Neo4jRecordStore, cut: BoltCut, where: str, runs: int
) -> None:
    await create(store, "c")
    ran: list[int] = []

    async def work(txn: Writer) -> int:
        ran.append(1)
        return await append(txn, "c", [memory("a")])

    cut.cuts = [where]
    assert await store.write(work) == 2
    assert len(ran) == runs
    assert await heads(store) == (2, ["a"])


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_new_cube_whose_answer_is_lost_is_made_once(store: Neo4jRecordStore, cut: BoltCut, where: str) -> None:
    cut.cuts = [where]
    await create(store, "c", memory("a"))
    assert await heads(store) == (1, ["a"])
    assert len(await store.read(lambda txn: txn.cubes(0, 9))) == 1


@pytest.mark.parametrize(("where", "runs"), [("before", 2), ("after", 1)])
async def test_a_call_without_a_commit_is_told_by_its_request_id(
    store: Neo4jRecordStore, cut: BoltCut, where: str, runs: int
) -> None:
    ran: list[int] = []

    async def work(txn: Writer) -> str:
        ran.append(1)
        assert await txn.request(KEY) is None
        await txn.put_request(KEY, RequestRow(bytes([len(ran)]) * 16, b"digest", "x", 0, 7))
        return f"run {len(ran)}"

    cut.cuts = [where]
    assert await store.write(work) == f"run {runs}"
    row = await store.read(lambda txn: txn.request(KEY))
    assert row is not None
    assert row.salt == bytes([runs]) * 16


@pytest.mark.parametrize(("where", "runs"), [("before", 2), ("after", 1)])
async def test_work_that_leaves_nothing_to_know_it_by_leaves_a_mark(
    store: Neo4jRecordStore, cut: BoltCut, where: str, runs: int
) -> None:
    ran: list[int] = []

    async def work(txn: Writer) -> None:
        ran.append(1)
        row = await txn.job("c", "j") or JobRow("c", "j", "compaction", 1, OWNER, 1, 1)
        # Done twice, it would count twice.
        await txn.put_job(JobRow("c", "j", "compaction", 1, OWNER, 1, 1, done=row.done + 1))
        await txn.put_audit(AuditRow(1, OWNER, "m", "cubes/c", "OK"))

    cut.cuts = [where]
    await store.write(work)
    assert len(ran) == runs
    job = await store.read(lambda txn: txn.job("c", "j"))
    assert job is not None
    assert job.done == 1
    assert len(await store.read(lambda txn: txn.audit_events("", 2**62, 9))) == 1
    assert await store.write(lambda txn: txn.forget_requests(2**62)) == 0
    assert await store.rows("MATCH (n:Unit) RETURN count(n)") == [[0]]


@pytest.mark.parametrize("done", [True, False])
async def test_a_database_that_shuts_down_while_it_commits_may_have_committed(
    store: Neo4jRecordStore, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    await create(store, "c")
    execute = AsyncSession.execute_write
    ran: list[int] = []

    async def shut_down(session: AsyncSession, work: Any) -> None:
        monkeypatch.setattr(AsyncSession, "execute_write", execute)
        if done:
            await execute(session, work)
        else:
            async with await session.begin_transaction() as transaction:
                await work(transaction)
                await transaction.rollback()
        raise DatabaseUnavailable

    monkeypatch.setattr(AsyncSession, "execute_write", shut_down)

    async def work(txn: Writer) -> int:
        ran.append(1)
        return await append(txn, "c", [memory("a")])

    assert await store.write(work) == 2
    assert len(ran) == (1 if done else 2)
    assert await heads(store) == (2, ["a"])


async def test_another_servers_commit_in_the_meantime_is_not_taken_for_ones_own(
    store: Neo4jRecordStore, other: Neo4jRecordStore, cut: BoltCut
) -> None:
    await create(store, "c")

    async def overtake() -> None:
        cut.then = None
        await commit(other, "c", memory("theirs"))

    cut.cuts, cut.then = ["before"], overtake
    # The two commits have the same bytes, as this suite makes them; what tells them apart is the transaction.
    assert await commit(store, "c", memory("mine")) == 3
    assert await heads(store) == (3, ["theirs", "mine"])


async def test_a_commit_that_is_cut_again_and_again_is_made_once(store: Neo4jRecordStore, cut: BoltCut) -> None:
    await create(store, "c")
    cut.cuts = ["before", "before", "after"]
    assert await commit(store, "c", memory("a")) == 2
    cut.cuts = ["before", "after"]
    assert await commit(store, "c", memory("b")) == 3
    assert await heads(store) == (3, ["a", "b"])


async def test_a_database_that_stays_away_leaves_the_outcome_open_and_says_so(
    store: Neo4jRecordStore, other: Neo4jRecordStore, cut: BoltCut, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(store, "c")
    monkeypatch.setattr(units, "_RESOLVE_S", 1.0)

    async def away() -> None:
        cut.refuse = True

    cut.cuts, cut.then = ["after"], away

    async def work(txn: Writer) -> int:
        revision = await append(txn, "c", [memory("a")])
        await txn.put_request(KEY, RequestRow(b"salt" * 4, b"digest", "x", revision, 7, 1))
        return revision

    with pytest.raises(MipError, match="may have taken effect; repeat it with the same request_id") as raised:
        await store.write(work)
    assert (raised.value.reason, raised.value.code) == ("BACKEND_UNAVAILABLE", "UNAVAILABLE")
    assert raised.value.retry_after_s
    # The request id tells the caller who tries again, on this server or on another.
    row = await other.read(lambda txn: txn.request(KEY))
    assert row is not None
    assert row.revision == 2
    cut.refuse = False
    assert await heads(store) == (2, ["a"])


async def test_a_database_that_is_away_is_told_as_such_and_nothing_is_written(
    store: Neo4jRecordStore, other: Neo4jRecordStore, cut: BoltCut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "_LOST_S", 0.5)
    await create(store, "c")
    cut.refuse = True
    cut.drop()
    for act in (commit(store, "c", memory("a")), heads(store), store.probe(), store.news(["c"])):
        with pytest.raises(MipError, match=r"Neo4j at bolt://127.0.0.1:[0-9]+ cannot be reached") as raised:
            await act
        assert raised.value.reason == "BACKEND_UNAVAILABLE"
        assert raised.value.retry_after_s
    assert await heads(other) == (1, [])
    cut.refuse = False
    assert await commit(store, "c", memory("a")) == 2


async def test_a_network_that_swallows_everything_is_noticed(
    store: Neo4jRecordStore, cut: BoltCut, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(store, "c")
    monkeypatch.setattr(statements, "READ_TIMEOUT_S", 1.0)
    monkeypatch.setattr(statements, "_ON_THE_WAY_S", 0.0)
    monkeypatch.setattr(units, "BEGIN_S", 1.0)
    cut.silent = True
    for act in (commit(store, "c", memory("a")), heads(store)):
        with pytest.raises(MipError, match="does not answer") as raised:
            await act
        assert (raised.value.code, bool(raised.value.retry_after_s)) == ("UNAVAILABLE", True)
    cut.silent = False
    cut.drop()
    monkeypatch.undo()
    assert await commit(store, "c", memory("a")) == 2
