"""The job runner: durable jobs, each run by one server at a time under a lease.

A job is a row of the record, written in the transaction of its cause. A server that dies leaves its lease to expire;
the next one runs the job again, so handlers are idempotent. A job that met what may pass waits and runs again.

Work that a call does itself, and that must not be left half done, holds a job whose handler takes it back: the job runs
unless the work's transaction ended it (`JobRunner.holding`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from memos_server._pb.mip.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_PENDING,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
)
from memos_server.errors import MipError
from memos_server.graph_dbs.base import JobRow, Reader, RecordStore, Writer
from memos_server.mem_cube.log import now_us

_LOG = logging.getLogger(__name__)
LEASE_S = 60
RETRY_S = 30
"""How long a job waits that could not be done now."""
INLINE_S = 20.0
"""How long the call that caused a job waits for it."""

Progress = Callable[[int, int], Awaitable[None]]
Handler = Callable[[JobRow, Progress], Awaitable[None]]

Explain = Callable[[Exception], MipError]
"""Makes the server's error of any backend's."""

_ENDED = (JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED)


def _is_held(row: JobRow | None, owner: str) -> TypeGuard[JobRow]:
    """Returns whether a job runs under a lease of an owner: one that ran out may be another's by now."""
    return row is not None and row.state == JOB_STATE_RUNNING and row.lease_owner == owner


@dataclass(frozen=True, slots=True)
class Held:
    """A job that its holder's work makes superfluous, if it takes effect."""

    cube_id: str
    id: str
    owner: str

    async def finish(self, txn: Writer) -> None:
        """Ends the job in the transaction in which the work takes effect.

        Raises:
            MipError: BACKEND_UNAVAILABLE when the lease was lost, so that the work may have been taken back.
        """
        row = await txn.job(self.cube_id, self.id)
        if not _is_held(row, self.owner):
            raise MipError("BACKEND_UNAVAILABLE", "the call stood still for too long and was taken back; try again")
        await txn.put_job(replace(row, state=JOB_STATE_SUCCEEDED, updated=now_us(), lease_until=0))


class JobRunner:
    """Runs jobs of registered kinds."""

    def __init__(self, store: RecordStore, owner: str, explain: Explain, *, poll_s: float = 5.0) -> None:
        """Runs jobs for one server.

        Args:
            store: Where jobs are rows.
            owner: Names the server in leases.
            explain: Says what an error of a backend is, so that a job that met what may pass is run again.
            poll_s: How often jobs that others left are looked for, seconds.
        """
        self._store = store
        self._owner = owner
        self._explain = explain
        self._poll_s = poll_s
        self._handlers: dict[str, tuple[Handler, bool]] = {}
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._held: set[tuple[str, str]] = set()
        self._poller: asyncio.Task[None] | None = None

    def register(self, kind: str, handler: Handler, *, cancellable: bool) -> None:
        """Says who does jobs of a kind, and whether they may be cancelled."""
        self._handlers[kind] = handler, cancellable

    def start(self) -> None:
        """Begins to look for unfinished jobs."""
        self._poller = asyncio.create_task(self._poll(), name="jobs")

    async def close(self) -> None:
        """Stops; running jobs are taken up again at the next start."""
        tasks = [*self._running.values(), *([self._poller] if self._poller else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run_now(self, cube_id: str, job_id: str) -> None:
        """Runs a job at once and waits for it, but not for longer than INLINE_S."""
        await asyncio.wait({self._start(cube_id, job_id)}, timeout=INLINE_S)

    @asynccontextmanager
    async def holding(self, job: JobRow) -> AsyncIterator[Held]:
        """Records a job, and keeps it from running while the block does what the job would take back.

        The job is durable before the block begins. When the block has ended, however it did, the job runs unless
        `Held.finish` ended it; when the server dies before that, the next one runs it once the lease is over.

        Args:
            job: The job; state and lease are set here.
        """
        held = Held(job.cube_id, job.id, f"{self._owner} holds {job.id}")
        key = job.cube_id, job.id
        until = now_us() + LEASE_S * 1_000_000
        self._held.add(key)
        keeper: asyncio.Task[None] | None = None
        try:
            await self._put(replace(job, state=JOB_STATE_RUNNING, lease_owner=held.owner, lease_until=until))
            keeper = asyncio.create_task(self._keep(held.cube_id, held.id, held.owner), name=f"lease {job.id}")
            yield held
        finally:
            if keeper is not None:
                keeper.cancel()
            # Shielded, as the caller may have gone away: what it has begun is taken back all the same.
            await asyncio.shield(asyncio.create_task(self._release(held), name=f"release {job.id}"))

    async def _keep(self, cube_id: str, job_id: str, owner: str) -> None:
        """Makes a lease last, until it is cancelled; returns when the lease is no longer the owner's, or may not be:
        whoever cannot reach the record does not know who has taken the job meanwhile."""
        kept = time.monotonic()

        async def extend(txn: Writer) -> bool:
            row = await txn.job(cube_id, job_id)
            if not _is_held(row, owner):
                return False
            now = now_us()
            await txn.put_job(replace(row, lease_until=now + LEASE_S * 1_000_000))
            return True

        while True:
            await asyncio.sleep(max(LEASE_S / 4, 0.1))
            began = time.monotonic()
            try:
                async with asyncio.timeout(max(kept + LEASE_S * 0.9 - began, 0.0)):
                    if not await self._store.write(extend):
                        return
                kept = began
            except Exception as error:
                if time.monotonic() >= kept + LEASE_S * 0.7:
                    _LOG.warning("the lease of job %s could not be extended in time: %s", job_id, error)
                    return
                # It may pass before the lease is over.
                _LOG.warning("the lease of job %s cannot be extended now: %s", job_id, error)

    async def _release(self, held: Held) -> None:
        """Lets a held job run, unless it was ended."""

        # As a write, so that it comes behind the work's own, which goes on when its caller goes away.
        async def let_go(txn: Writer) -> bool:
            row = await txn.job(held.cube_id, held.id)
            if row is None or (row.lease_owner == held.owner and row.state != JOB_STATE_RUNNING):
                return False
            # Another server may have taken it over, and back what was there then: the rest is left to a second run.
            await txn.put_job(replace(row, state=JOB_STATE_PENDING, updated=now_us(), lease_owner="", lease_until=0))
            return True

        try:
            left = await self._store.write(let_go)
        except Exception:
            # What the block did stands as it is, and its caller hears of that: the job is run when the lease is over.
            _LOG.exception("job %s cannot be let go of now", held.id)
            left = False
        finally:
            self._held.discard((held.cube_id, held.id))
        if left:
            await self.run_now(held.cube_id, held.id)

    async def wait(self, cube_id: str, job_id: str, timeout_s: float) -> None:
        """Returns when a job has ended, or after the timeout."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            row = await self._row(cube_id, job_id)
            left = deadline - asyncio.get_running_loop().time()
            if row is None or row.state in _ENDED or left <= 0:
                return
            task = self._running.get((cube_id, job_id))
            if task is not None:
                await asyncio.wait({task}, timeout=left)
            else:
                await asyncio.sleep(min(0.2, left))

    async def cancel(self, cube_id: str, job_id: str) -> None:
        """Ends a job when its kind may be cancelled; one that has ended stays as it is."""
        row = await self._row(cube_id, job_id)
        if row is None or row.state in _ENDED or not self._handlers.get(row.kind, (None, False))[1]:
            return
        task = self._running.get((cube_id, job_id))
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        async def end(txn: Writer) -> None:
            # As it is now: it may have ended before its task heard of the cancellation.
            row = await txn.job(cube_id, job_id)
            if row is not None and row.state not in _ENDED:
                await txn.put_job(replace(row, state=JOB_STATE_CANCELLED, updated=now_us(), lease_until=0))

        await self._store.write(end)

    def _start(self, cube_id: str, job_id: str) -> asyncio.Task[None]:
        key = cube_id, job_id
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._run(cube_id, job_id), name=f"job {cube_id}/{job_id}")
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return task

    async def _poll(self) -> None:
        away = False
        while True:
            try:

                async def read(txn: Reader) -> list[JobRow]:
                    return list(await txn.unfinished_jobs(now_us(), 100))

                for row in await self._store.read(read):
                    if row.kind in self._handlers and (row.cube_id, row.id) not in self._held:
                        self._start(row.cube_id, row.id)
            except MipError as error:
                if not away:
                    _LOG.warning("jobs cannot be looked for now: %s", error.message)
                away = True
            except Exception:
                # Whatever the record's error is, it passes; the poller must outlive it.
                _LOG.exception("jobs cannot be looked for now")
            else:
                away = False
            await asyncio.sleep(self._poll_s)

    async def _run(self, cube_id: str, job_id: str) -> None:
        row = await self._lease(cube_id, job_id)
        if row is None:
            return

        async def progress(done: int, total: int) -> None:
            async def put(txn: Writer) -> None:
                held = await txn.job(cube_id, job_id)
                if _is_held(held, self._owner):
                    now = now_us()
                    until = now + LEASE_S * 1_000_000
                    await txn.put_job(replace(held, done=done, total=total, updated=now, lease_until=until))

            await self._store.write(put)

        work = asyncio.ensure_future(self._handlers[row.kind][0](row, progress))
        keeper = asyncio.create_task(self._keep(cube_id, job_id, self._owner), name=f"lease {job_id}")
        try:
            await asyncio.wait({work, keeper}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                # It was cancelled, or taken over by another server: there, it begins anew or has ended.
                _LOG.warning("job %s of cubes/%s is no longer this server's", job_id, cube_id)
                return
            try:
                work.result()
            except Exception as raised:
                await self._failed(cube_id, job_id, self._explain(raised))
            else:
                await self._end(cube_id, job_id, state=JOB_STATE_SUCCEEDED, lease_until=0)
        finally:
            keeper.cancel()
            work.cancel()
            await asyncio.gather(work, keeper, return_exceptions=True)

    async def _end(self, cube_id: str, job_id: str, **changed: Any) -> None:
        """Puts what a run of this server has come to, unless the job is no longer its."""

        async def put(txn: Writer) -> None:
            row = await txn.job(cube_id, job_id)
            if _is_held(row, self._owner):
                await txn.put_job(replace(row, updated=now_us(), **changed))

        await self._store.write(put)

    async def _failed(self, cube_id: str, job_id: str, error: MipError) -> None:
        """Ends a job with an error, or lets it wait where the error may pass."""
        # A full disk is no use to retry for a caller; a job can wait until somebody has made room.
        if error.rule.retryable or error.reason == "STORAGE_FULL":
            _LOG.warning("job %s of cubes/%s is run again in %d s: %s", job_id, cube_id, RETRY_S, error.message)
            until = now_us() + RETRY_S * 1_000_000
            await self._end(cube_id, job_id, state=JOB_STATE_PENDING, lease_owner="", lease_until=until)
            return
        _LOG.error("job %s of cubes/%s failed: %s", job_id, cube_id, error.message)
        told = {"error_reason": error.reason, "error_message": error.message}
        await self._end(cube_id, job_id, state=JOB_STATE_FAILED, lease_until=0, **told)

    async def _lease(self, cube_id: str, job_id: str) -> JobRow | None:
        async def take(txn: Writer) -> JobRow | None:
            row = await txn.job(cube_id, job_id)
            now = now_us()
            if row is None or row.state not in (JOB_STATE_PENDING, JOB_STATE_RUNNING) or row.kind not in self._handlers:
                return None
            if row.lease_until > now and row.lease_owner != self._owner:
                return None
            until = now + LEASE_S * 1_000_000
            row = replace(row, state=JOB_STATE_RUNNING, updated=now, lease_owner=self._owner, lease_until=until)
            await txn.put_job(row)
            return row

        return await self._store.write(take)

    async def _row(self, cube_id: str, job_id: str) -> JobRow | None:
        async def read(txn: Reader) -> JobRow | None:
            return await txn.job(cube_id, job_id)

        return await self._store.read(read)

    async def _put(self, row: JobRow) -> None:
        async def write(txn: Writer) -> None:
            await txn.put_job(row)

        await self._store.write(write)
