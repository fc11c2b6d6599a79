"""How the server is: what it depends on, tried again and again, and what its process and folder take.

One task does it in the background, so that asking costs nothing, and what hangs is noticed by nobody but that task.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from memos_server._pb.mip.v1.server_service_pb2 import DependencyHealth, ProcessStats
from memos_server.errors import MipError

_LOG = logging.getLogger(__name__)
_MEASURE_EVERY_S = 60.0
"""How often the data folder's files are counted, which takes long where there are many."""

DEPENDENCIES = ("record", "index", "blobs", "embedder")
"""The names of all dependencies that a server may have."""
RECORD = "record"
"""The dependency without which no call of a cube can be answered."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """A part that the server depends on.

    Attributes:
        name: `record`, `index`, `blobs` or `embedder`.
        backend: Which backend it is.
        probe: Tries it; raises when it does not work.
    """

    name: str
    backend: str
    probe: Callable[[], Awaitable[None]]


Changed = Callable[[str, bool], Awaitable[None]]


class Vitals:
    """Tries the dependencies and measures process and folder."""

    def __init__(
        self,
        data: Path,
        dependencies: Sequence[Dependency],
        *,
        interval_s: float,
        timeout_s: float,
        changed: Changed | None = None,
    ) -> None:
        """Prepares; `start` begins.

        Args:
            data: The data folder.
            dependencies: What is tried.
            interval_s: How often, seconds.
            timeout_s: How long one may take before it counts as failed, seconds.
            changed: Told a dependency's name and whether it works, at the first try and at each change.
        """
        self._data = data
        self._dependencies = dependencies
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self.changed = changed
        self._problems: dict[str, str] = {}
        self._known: dict[str, bool] = {}
        self._data_bytes = 0
        self._process = psutil.Process()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to look, in the background."""
        self._tasks = [
            *(asyncio.create_task(self._look_after(each), name=f"probe {each.name}") for each in self._dependencies),
            asyncio.create_task(self._measure(), name="measure the data folder"),
        ]

    async def close(self) -> None:
        """Ends the background work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def serves(self) -> bool:
        """Returns whether calls can be answered, as far as is known: whether the record works."""
        return self._known.get(RECORD, True)

    def dependencies(self) -> list[DependencyHealth]:
        """Returns how each dependency was when it was last tried; before that it counts as working."""
        return [
            DependencyHealth(
                name=each.name,
                backend=each.backend,
                serving=self._known.get(each.name, True),
                problem=self._problems.get(each.name, ""),
            )
            for each in self._dependencies
        ]

    async def process(self) -> ProcessStats:
        """Returns what the process and the data folder take now; the folder's size is a minute old at most."""
        return await asyncio.to_thread(self._process_now)

    def _process_now(self) -> ProcessStats:
        with self._process.oneshot():
            times = self._process.cpu_times()
            memory = self._process.memory_info().rss
        files = free = 0
        with suppress(psutil.Error, OSError):
            files = self._process.num_fds()
        with suppress(OSError):
            free = shutil.disk_usage(self._data).free
        return ProcessStats(
            resident_bytes=memory,
            cpu_seconds=times.user + times.system,
            open_files=files,
            data_bytes=self._data_bytes,
            free_disk_bytes=free,
        )

    async def _look_after(self, dependency: Dependency) -> None:
        running: asyncio.Task[str] | None = None
        slow = f"no answer within {self._timeout_s:g} s; look whether its disk or the processor is overloaded"
        try:
            while True:
                # What hangs is not tried again until it has answered: each try may hold a thread.
                running = running or asyncio.create_task(self._try(dependency), name=f"try {dependency.name}")
                await asyncio.wait({running}, timeout=self._timeout_s)
                problem = slow
                if running.done():
                    problem, running = running.result(), None
                await self._settle(dependency, problem)
                await asyncio.sleep(self._interval_s)
        finally:
            if running is not None:
                running.cancel()

    async def _try(self, dependency: Dependency) -> str:
        """Returns what is wrong with a dependency; empty when nothing is."""
        try:
            await dependency.probe()
        except MipError as error:
            return error.message
        except Exception as error:
            # A fault of the backend; its text may quote what it was about.
            problem = f"it fails with {type(error).__name__}; the server's log says where"
            if self._problems.get(dependency.name) != problem:
                _LOG.warning("the probe of %s failed", dependency.name, exc_info=error)
            return problem
        return ""

    async def _settle(self, dependency: Dependency, problem: str) -> None:
        name, works = dependency.name, not problem
        self._problems[name] = problem
        if self._known.get(name) == works:
            return
        if works and name in self._known:
            _LOG.info("%s (%s) works again", name, dependency.backend)
        elif not works:
            _LOG.error("%s (%s) does not work: %s", name, dependency.backend, problem)
        self._known[name] = works
        if self.changed is None:
            return
        try:
            await self.changed(name, works)
        except Exception:
            # Whoever could not be told hears of the next change; looking goes on.
            _LOG.exception("the health of %s could not be told", name)

    async def _measure(self) -> None:
        while True:
            self._data_bytes = await asyncio.to_thread(folder_bytes, self._data)
            await asyncio.sleep(_MEASURE_EVERY_S)


def folder_bytes(folder: Path) -> int:
    """Returns what the files below a folder take, in bytes; those that vanish meanwhile count nothing."""
    total = 0
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    with suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        else:
                            total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
