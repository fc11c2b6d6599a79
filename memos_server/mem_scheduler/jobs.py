"""The job runner: durable jobs, each run by one server at a time under a lease.

A job is a row of the record, written in the transaction of its cause. A server that dies leaves its lease to expire;
the next one runs the job again, so handlers are idempotent. A job that met what may pass waits and runs again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

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

_ENDED = (JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED)


class JobRunner:
    """Runs jobs of registered kinds."""

    def __init__(self, store: RecordStore, owner: str, *, poll_s: float = 5.0) -> None:
        """Runs jobs for one server.

        Args:
            store: Where jobs are rows.
            owner: Names the server in leases.
            poll_s: How often jobs that others left are looked for, seconds.
        """
        self._store = store
        self._owner = owner
        self._poll_s = poll_s
        self._handlers: dict[str, tuple[Handler, bool]] = {}
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
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
        await self._put(replace(row, state=JOB_STATE_CANCELLED, updated=now_us(), lease_until=0))

    def _start(self, cube_id: str, job_id: str) -> asyncio.Task[None]:
        key = cube_id, job_id
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._run(cube_id, job_id), name=f"job {cube_id}/{job_id}")
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return task

    async def _poll(self) -> None:
        while True:
            try:

                async def read(txn: Reader) -> list[JobRow]:
                    return list(await txn.unfinished_jobs(now_us(), 100))

                for row in await self._store.read(read):
                    if row.kind in self._handlers:
                        self._start(row.cube_id, row.id)
            except Exception:
                # Whatever the record's error is, it passes; the poller must outlive it.
                _LOG.exception("jobs cannot be looked for now")
            await asyncio.sleep(self._poll_s)

    async def _run(self, cube_id: str, job_id: str) -> None:
        row = await self._lease(cube_id, job_id)
        if row is None:
            return
        latest = row

        async def progress(done: int, total: int) -> None:
            nonlocal latest
            now = now_us()
            latest = replace(latest, done=done, total=total, updated=now, lease_until=now + LEASE_S * 1_000_000)
            await self._put(latest)

        try:
            await self._handlers[row.kind][0](row, progress)
        except MipError as error:
            now = now_us()
            if error.rule.retryable:
                _LOG.warning("job %s of cubes/%s is run again in %d s: %s", job_id, cube_id, RETRY_S, error.message)
                waits = replace(latest, state=JOB_STATE_PENDING, updated=now, lease_owner="")
                await self._put(replace(waits, lease_until=now + RETRY_S * 1_000_000))
                return
            ended = replace(latest, state=JOB_STATE_FAILED, error_reason=error.reason, error_message=error.message)
            await self._put(replace(ended, updated=now, lease_until=0))
        except Exception:
            _LOG.exception("job %s of cubes/%s failed", job_id, cube_id)
            ended = replace(
                latest, state=JOB_STATE_FAILED, error_reason="INTERNAL", error_message="see the server's log"
            )
            await self._put(replace(ended, updated=now_us(), lease_until=0))
        else:
            await self._put(replace(latest, state=JOB_STATE_SUCCEEDED, updated=now_us(), lease_until=0))

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
