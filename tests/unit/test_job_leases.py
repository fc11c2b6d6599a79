"""Two servers over one record run each job once at a time, and take over what a dead one left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memos_server._pb.mip.v1.job_pb2 import JOB_STATE_CANCELLED, JOB_STATE_PENDING, JOB_STATE_SUCCEEDED
from memos_server.api.status import from_exception
from memos_server.errors import MipError
from memos_server.graph_dbs.base import JobRow, RecordStore
from memos_server.graph_dbs.sqlite import SqliteRecordStore
from memos_server.mem_scheduler import jobs
from memos_server.mem_scheduler.jobs import JobRunner, Progress


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RecordStore]:
    opened = SqliteRecordStore(str(tmp_path))
    await opened.open()
    yield opened
    await opened.close()


class Work:
    """A job's work that lasts until it is let go."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.go = asyncio.Event()

    def of(self, server: str) -> jobs.Handler:
        async def handle(job: JobRow, progress: Progress) -> None:
            self.began.append(server)
            await self.go.wait()
            await progress(1, 1)
            self.ended.append(server)

        return handle


def server(store: RecordStore, name: str, work: Work, *, cancellable: bool = False) -> JobRunner:
    runner = JobRunner(store, name, from_exception, poll_s=0.02)
    runner.register("work", work.of(name), cancellable=cancellable)
    return runner


async def put(store: RecordStore) -> None:
    row = JobRow("c", "j", "work", JOB_STATE_PENDING, "principals/p", 1, 1)
    await store.write(lambda txn: txn.put_job(row))


async def job(store: RecordStore) -> JobRow:
    row = await store.read(lambda txn: txn.job("c", "j"))
    assert row is not None
    return row


async def test_a_job_that_takes_longer_than_its_lease_is_not_run_by_another_server(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LEASE_S", 0.3)
    work = Work()
    await put(store)
    servers = [server(store, name, work) for name in ("one", "two")]
    for each in servers:
        each.start()
    await asyncio.sleep(1.2)
    assert len(work.began) == 1
    work.go.set()
    await servers[1].wait("c", "j", 5)
    for each in servers:
        await each.close()
    assert (await job(store)).state == JOB_STATE_SUCCEEDED
    assert work.ended == work.began


async def test_a_server_that_stood_still_does_not_end_the_job_of_who_took_it_over(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LEASE_S", 0.3)
    work = Work()
    await put(store)
    still, other = server(store, "still", work), server(store, "other", work)
    monkeypatch.setattr(still, "_keep", lambda *_: asyncio.sleep(3600))
    running = asyncio.create_task(still.run_now("c", "j"))
    await asyncio.sleep(0.5)
    other.start()
    await asyncio.sleep(0.3)
    assert work.began == ["still", "other"]
    monkeypatch.setattr(jobs, "LEASE_S", 60)
    owner = (await job(store)).lease_owner
    work.go.set()
    await running
    await other.wait("c", "j", 5)
    row = await job(store)
    assert (owner, row.lease_owner, row.state) == ("other", "other", JOB_STATE_SUCCEEDED)
    await other.close()
    await still.close()


async def test_a_job_that_was_cancelled_on_another_server_stops(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LEASE_S", 0.3)
    work = Work()
    await put(store)
    runs, cancels = server(store, "runs", work, cancellable=True), server(store, "cancels", work, cancellable=True)
    running = asyncio.create_task(runs.run_now("c", "j"))
    await asyncio.sleep(0.1)
    await cancels.cancel("c", "j")
    async with asyncio.timeout(5):
        await running
    assert (work.began, work.ended) == (["runs"], [])
    assert (await job(store)).state == JOB_STATE_CANCELLED
    await runs.close()
    await cancels.close()


async def test_a_server_that_cannot_extend_its_lease_stops_before_the_lease_is_over(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LEASE_S", 0.6)
    work = Work()
    await put(store)
    runner = server(store, "cut off", work)
    running = asyncio.create_task(runner.run_now("c", "j"))
    await asyncio.sleep(0.05)
    write = store.write

    async def nobody_answers(_: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(store, "write", nobody_answers)
    async with asyncio.timeout(0.58):
        await running
    monkeypatch.setattr(store, "write", write)
    assert (work.began, work.ended) == (["cut off"], [])
    await runner.close()


async def test_what_a_holder_did_after_it_was_taken_over_is_taken_back_too(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LEASE_S", 0.2)
    taken: list[str] = []

    async def take_back(job: JobRow, progress: Progress) -> None:
        taken.append(job.lease_owner)

    holder, other = (JobRunner(store, name, from_exception, poll_s=0.02) for name in ("holder", "other"))
    for runner in (holder, other):
        runner.register("work", take_back, cancellable=False)
    monkeypatch.setattr(holder, "_keep", lambda *_: asyncio.sleep(3600))
    with pytest.raises(MipError):  # noqa: PT012  what the block does on its way out is what is tested
        async with holder.holding(JobRow("c", "j", "work", JOB_STATE_PENDING, "principals/p", 1, 1)) as held:
            await asyncio.sleep(0.3)
            await other.run_now("c", "j")
            assert taken == ["other"]
            await store.write(held.finish)
    assert taken == ["other", "holder"]
    await holder.close()
    await other.close()
