"""Processes that put load on one side: so many clients at a time, each call's time kept."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engines.sides import Raw, Server
from engines.supply import read

SIDES: Mapping[str, type[Raw] | type[Server]] = {"raw": Raw, "server": Server}


@dataclass(frozen=True, slots=True)
class Job:
    """What the clients do.

    Attributes:
        what: `add`, `search`, `make` (cubes), `wait` (until they are searchable), `prepare` (schemas); of the server
            alone `name`, `update`, `archive` (memories one by one); of the raw side
            alone `record` and `index` (one half of `add`), and of its index `prepare_index`, `search_index`, `tenants`,
            `load`, `unload`, `drop`.
        cubes: They take turns over these cubes' numbers.
        clients: How many calls are under way at a time.
        seconds: For how long; 0 means until `calls` are made.
        calls: How many calls; 0 means until the time is over.
        batch: Memories in a call.
        first: The number of the first text or question.
        kind: The kind of search.
        searchable: True waits at the end until all is searchable, and counts that.
    """

    what: str
    cubes: tuple[int, ...] = (0,)
    clients: int = 1
    seconds: float = 0.0
    calls: int = 0
    batch: int = 1
    first: int = 0
    kind: str = "hybrid"
    searchable: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it.

    Attributes:
        times: float64 (calls,): seconds that each successful call took.
        seconds: All together, until everything was acknowledged.
        seen: All together, until everything was searchable.
        record: Seconds that the raw side's calls waited for the record.
        index: Seconds that they waited for the index.
        found: Memories that searches returned, a call.
        cpu: Processor seconds of the clients' process.
        errors: Kind of error -> how many calls ended with it.
    """

    times: NDArray[np.float64]
    seconds: float
    seen: float
    record: float
    index: float
    found: float
    cpu: float
    errors: dict[str, int]

    @property
    def rate(self) -> float:
        """Successful calls a second."""
        return len(self.times) / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float:
        """Returns a quantile of the calls' times, milliseconds."""
        return float(np.quantile(self.times, share)) * 1e3 if len(self.times) else float("nan")


async def _run(side: Any, job: Job) -> Done:
    side.width = max(1, min(8, job.clients // 8))
    if job.what == "prepare":
        await side.prepare()
    if job.what == "prepare_index":
        await side.prepare_index()
    if job.what == "search_index":
        return await _turns(job, lambda cube, n: side.search_index(cube, job.first + n, job.kind), side)
    if job.what == "make":
        await _turns(job, lambda cube, _: side.make_cube(cube))
    if job.what == "wait":
        return await _turns(replace(job, calls=len(job.cubes)), lambda cube, _: side.searchable(cube))
    if job.what in ("tenants", "load", "unload", "drop"):
        began = time.perf_counter()
        await side.tenants(job.what, job.cubes)
        seconds = time.perf_counter() - began
        return Done(np.zeros(1), seconds, seconds, 0.0, 0.0, 0.0, 0.0, {})
    if job.what == "record":
        return await _turns(job, lambda cube, n: side.add_to_record(cube, job.first + n * job.batch, job.batch), side)
    if job.what == "index":
        side.ready(job.first, job.first + min(job.calls * job.batch, 120_000))
        return await _turns(job, lambda cube, n: side.add_to_index(cube, job.first + n * job.batch, job.batch), side)
    if job.what == "add":
        # Analysed before the clock starts, also what a timed run will hardly reach.
        upto = (job.calls or int(job.seconds * 2000) // job.batch) * job.batch
        side.ready(job.first, job.first + min(upto, 120_000))
        return await _turns(
            job,
            lambda cube, n: side.add(cube, job.first + n * job.batch, job.first + (n + 1) * job.batch),
            side,
        )
    if job.what in ("name", "update", "archive"):
        return await _turns(job, lambda cube, n: getattr(side, job.what)(cube, n), side)
    if job.what == "search":
        return await _turns(job, lambda cube, n: side.search(cube, job.first + n, job.kind), side)
    return Done(np.zeros(0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, {})


async def _turns(job: Job, call: Any, side: Any = None) -> Done:
    times: list[float] = []
    errors: dict[str, int] = {}
    found: list[int] = []
    upcoming = iter(range(job.calls or 1 << 60))
    spent = list(side.seconds) if side is not None else [0.0, 0.0]
    began, worked = time.perf_counter(), time.process_time()

    async def client() -> None:
        for number in upcoming:
            before = time.perf_counter()
            if job.seconds and before - began >= job.seconds:
                return
            try:
                result = await call(job.cubes[number % len(job.cubes)], number)
            except Exception as error:
                name = f"{type(error).__name__}: {error}"[:160]
                errors[name] = errors.get(name, 0) + 1
                if sum(errors.values()) > 200:
                    return
            else:
                times.append(time.perf_counter() - before)
                if isinstance(result, int):
                    found.append(result)

    await asyncio.gather(*(client() for _ in range(job.clients)))
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    if job.searchable and side is not None:
        for cube in job.cubes:
            await side.searchable(cube)
    seen = time.perf_counter() - began
    after = side.seconds if side is not None else spent
    mean = float(np.mean(found)) if found else 0.0
    return Done(np.array(times), seconds, seen, after[0] - spent[0], after[1] - spent[1], mean, cpu, errors)


async def _serve(pipe: Connection, name: str, supply: Path, where: Mapping[str, Any]) -> None:
    side = SIDES[name](read(supply), where)
    await side.open()
    loop = asyncio.get_running_loop()
    try:
        while (job := await loop.run_in_executor(None, pipe.recv)) is not None:
            try:
                pipe.send(await _run(side, job))
            except Exception:
                pipe.send(traceback.format_exc())
    finally:
        await side.close()


def _main(pipe: Connection, name: str, supply: Path, where: Mapping[str, Any]) -> None:
    asyncio.run(_serve(pipe, name, supply, where))


class Clients:
    """A process with clients of one side."""

    def __init__(self, name: str, supply: Path, where: Mapping[str, Any]) -> None:
        """Starts it.

        Args:
            name: `raw` or `server`.
            supply: The folder of the supply.
            where: What the side needs to know: settings of the engines, or the servers' address and token.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, name, supply, dict(where)), daemon=True)
        self._process.start()
        theirs.close()

    def start(self, job: Job) -> None:
        """Begins a job; `result` waits for its end."""
        self._pipe.send(job)

    def result(self, timeout_s: float = 1800.0) -> Done:
        """Returns what came of the job that was started.

        Raises:
            RuntimeError: The job could not be done, or not in time.
        """
        if not self._pipe.poll(timeout_s):
            raise RuntimeError(f"the clients did not end within {timeout_s:g} s")
        try:
            done = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the process of the clients ended") from None
        if isinstance(done, str):
            raise RuntimeError(done)
        assert isinstance(done, Done)
        return done

    def run(self, job: Job, timeout_s: float = 1800.0) -> Done:
        """Does a job."""
        self.start(job)
        return self.result(timeout_s)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(timeout=15)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()
