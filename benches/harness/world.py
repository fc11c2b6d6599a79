"""What the parts of a run share: a folder, texts, a server with cubes of several sizes, client processes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.calls import Caller, filled_cube
from harness.load import ClientProcess, Job
from harness.servers import EchoServer, MemosServer
from harness.texts import Texts, unit_vectors


@dataclass(slots=True)
class FilledCube:
    """A cube with memories in it.

    Attributes:
        name: Its name.
        names: Names of some of its memories.
        size: How many it has.
        load_seconds: How long it took until all were searchable.
    """

    name: str
    names: list[str]
    size: int
    load_seconds: float


@dataclass(slots=True)
class World:
    """The parts of a run.

    Attributes:
        folder: A temporary folder, on the file system that is measured.
        texts: Where texts come from.
        quick: True makes everything small: to see that it runs, not to know how fast.
        stack: Ends what was started.
    """

    folder: Path
    texts: Texts
    quick: bool
    stack: ExitStack
    _server: MemosServer | None = None
    _caller: Caller | None = None
    _cubes: dict[int, FilledCube] = field(default_factory=dict)
    _supply: list[str] = field(default_factory=list)
    _vectors: NDArray[np.float32] | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The sizes of cubes: small, middle, large."""
        return (500, 1000, 4000) if self.quick else (1000, 10_000, 100_000)

    @property
    def rounds(self) -> int:
        """How many turns each thing takes beside its rival."""
        return 2 if self.quick else 5

    @property
    def server(self) -> MemosServer:
        """The server without an embedder that the parts share."""
        if self._server is None:
            self._server = self.stack.enter_context(MemosServer(self.folder / "shared"))
        return self._server

    @property
    def caller(self) -> Caller:
        """A client of the shared server."""
        if self._caller is None:
            self._caller = Caller(self.server.address, self.server.token)
        return self._caller

    def restart(self) -> MemosServer:
        """Stops and starts the shared server."""
        if self._caller is not None:
            self._caller.close()
        self.server.stop()
        self._server = self._caller = None
        return self.server

    def echo(self, response_bytes: int) -> EchoServer:
        """Starts an echo; the caller of this stops it."""
        return EchoServer(self.folder, response_bytes)

    def supply(self, count: int) -> tuple[list[str], NDArray[np.float32]]:
        """Returns texts and float32 (count, 384) vectors for them; always the same ones."""
        if self._vectors is None or len(self._vectors) < count:
            count_all = max(count, self.sizes[2])
            self._supply, self._vectors = self.texts.take(count_all), unit_vectors(count_all)
        return self._supply[:count], self._vectors[:count]

    def cube(self, size: int) -> FilledCube:
        """Returns a cube of the shared server with so many memories; made at its first use, for reading."""
        found = self._cubes.get(size)
        if found is None:
            texts, vectors = self.supply(size)
            began = time.perf_counter()
            name, names = filled_cube(self.caller, f"of-{size}", texts, vectors)
            found = self._cubes[size] = FilledCube(name, names, size, time.perf_counter() - began)
        return found

    def job(self, path: str, bodies: list[bytes], clients: int, seconds: float = 0.0, *, once: bool = False) -> Job:
        """Returns a job for a client process on the shared server."""
        return Job(self.server.address, self.server.token, path, bodies, clients, seconds, once)

    def clients(self) -> ClientProcess:
        """Starts a process for clients; the caller of this ends it."""
        return ClientProcess()
