"""A job that met what may pass is run again; one that met a fault of the server ends and says so."""

from __future__ import annotations

import asyncio
import errno
import sqlite3

import pytest

from memos_server._pb.mip.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_PENDING,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
)
from memos_server.errors import MipError
from memos_server.graph_dbs.base import JobRow
from memos_server.mem_scheduler import jobs
from memos_server.mem_scheduler.jobs import Progress
from tests.conftest import World
from tests.support.mip import Mip, text

PASSES = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "Input/output error"),
    sqlite3.OperationalError("database or disk is full"),
    MipError("STORAGE_FULL", "the disk is full"),
    MipError("BACKEND_UNAVAILABLE", "the index is away"),
]


async def purged(world: World, mip: Mip, error: Exception) -> str:
    """Purges a memory while the compaction meets an error, and returns the compaction's name."""
    await mip.CreateCube(cube_id="c")
    name = (await mip.AddMemories(parent="cubes/c", memories=[text("tea")])).memories[0].name

    async def fails(job: JobRow, progress: Progress) -> None:
        raise error

    world.server.mos.jobs.register("compaction", fails, cancellable=False)
    return str((await mip.PurgeMemories(parent="cubes/c", names=[name], reason="asked")).compaction_job)


@pytest.mark.parametrize("error", PASSES, ids=lambda error: f"{type(error).__name__} {error}")
async def test_a_job_that_met_what_may_pass_is_run_again(
    world: World, mip: Mip, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RETRY_S", 0)
    job = await purged(world, mip, error)
    assert (await mip.GetJob(name=job)).job.state == JOB_STATE_PENDING

    async def works(job: JobRow, progress: Progress) -> None:
        await asyncio.sleep(0)

    world.server.mos.jobs.register("compaction", works, cancellable=False)
    await world.server.mos.jobs.run_now("c", job.rpartition("/")[2])
    assert (await mip.GetJob(name=job)).job.state == JOB_STATE_SUCCEEDED


async def test_a_job_that_met_a_fault_of_the_server_ends_without_its_words(world: World, mip: Mip) -> None:
    job = (await mip.GetJob(name=await purged(world, mip, ZeroDivisionError("of a secret")))).job
    assert (job.state, job.error_reason) == (JOB_STATE_FAILED, "INTERNAL")
    assert "secret" not in job.error_message


async def test_a_job_that_ends_while_it_is_being_cancelled_stays_as_it_ended(
    world: World, mip: Mip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "INLINE_S", 0.1)
    await mip.CreateCube(cube_id="c")
    name = (await mip.AddMemories(parent="cubes/c", memories=[text("tea")])).memories[0].name
    go = asyncio.Event()

    async def waits(job: JobRow, progress: Progress) -> None:
        await go.wait()

    runner = world.server.mos.jobs
    runner.register("compaction", waits, cancellable=True)
    job = str((await mip.PurgeMemories(parent="cubes/c", names=[name], reason="asked")).compaction_job)
    read = runner._row

    async def late(cube_id: str, job_id: str) -> JobRow | None:
        row = await read(cube_id, job_id)
        go.set()
        await runner._start(cube_id, job_id)
        return row

    monkeypatch.setattr(runner, "_row", late)
    await mip.CancelJob(name=job)
    assert (await mip.GetJob(name=job)).job.state == JOB_STATE_SUCCEEDED


async def test_a_running_job_is_cancelled(world: World, mip: Mip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "INLINE_S", 0.1)
    await mip.CreateCube(cube_id="c")
    name = (await mip.AddMemories(parent="cubes/c", memories=[text("tea")])).memories[0].name

    async def waits(job: JobRow, progress: Progress) -> None:
        await asyncio.Event().wait()

    world.server.mos.jobs.register("compaction", waits, cancellable=True)
    job = str((await mip.PurgeMemories(parent="cubes/c", names=[name], reason="asked")).compaction_job)
    assert (await mip.GetJob(name=job)).job.state == JOB_STATE_RUNNING
    await mip.CancelJob(name=job)
    assert (await mip.GetJob(name=job)).job.state == JOB_STATE_CANCELLED
