"""AsyncJobs: long work."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from memos_sdk import _stubs
from memos_sdk._async.caller import AsyncCaller
from memos_sdk._core.convert import duration, generated
from memos_sdk._core.names import cube_name

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


class AsyncJobs:
    """Shows long work, waits for it and ends it."""

    def __init__(self, caller: AsyncCaller) -> None:
        """Is made by the client."""
        self._caller = caller

    async def list(self, cube: str, *, page_size: int = 0, timeout: float | None = None) -> AsyncIterator[mip.Job]:
        """Yields the jobs of a cube, newest first."""
        request = _stubs.LIST_JOBS(parent=cube_name(cube), page_size=page_size)
        async for job in self._caller.pages(_stubs.LIST_JOBS, request, "jobs", timeout):
            yield generated(job)

    async def get(self, name: str, *, timeout: float | None = None) -> mip.Job:
        """Returns a job, by its name `cubes/{cube}/jobs/{job}`."""
        response = await self._caller.call(_stubs.GET_JOB, _stubs.GET_JOB(name=name), timeout)
        return generated(response.job)

    async def wait(self, name: str, *, seconds: float = 30.0) -> mip.Job:
        """Returns a job when it has ended, or as it is when the time is over.

        Args:
            name: The job.
            seconds: How long to wait, at most 600.
        """
        request = _stubs.WAIT_JOB(name=name, timeout=duration(datetime.timedelta(seconds=seconds)))
        # The server answers when the time is over; the call itself gets a little more.
        response = await self._caller.call(_stubs.WAIT_JOB, request, seconds + 15.0)
        return generated(response.job)

    async def cancel(self, name: str, *, request_id: str = "", timeout: float | None = None) -> mip.Job:
        """Asks a job to end, and returns it."""
        request = _stubs.CANCEL_JOB(name=name, request_id=request_id)
        response = await self._caller.call(_stubs.CANCEL_JOB, request, timeout)
        return generated(response.job)
