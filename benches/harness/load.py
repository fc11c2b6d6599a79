"""Client processes that put load on a server: raw bytes in, raw bytes out, each call's time kept."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Job:
    """What a client process is to do.

    Attributes:
        address: The server.
        token: What it shows.
        path: The full method path.
        bodies: The requests; the clients take them turn about.
        clients: How many calls are under way at a time.
        seconds: For how long.
        once: True sends each body once, and ends with the last.
    """

    address: str
    token: str
    path: str
    bodies: Sequence[bytes]
    clients: int
    seconds: float = 0.0
    once: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it.

    Attributes:
        times: float64 (calls,), seconds that each successful call took.
        seconds: How long all took together.
        refused: Status code -> how many calls ended with it.
    """

    times: NDArray[np.float64]
    seconds: float
    refused: dict[str, int]

    @property
    def rate(self) -> float:
        """Successful calls a second."""
        return len(self.times) / self.seconds

    def quantile(self, share: float) -> float:
        """Returns a quantile of the calls' times, milliseconds."""
        return float(np.quantile(self.times, share)) * 1e3


_channels: dict[str, grpc.Channel] = {}


def _alone(job: Job) -> Done:
    """One client: the synchronous one, whose share of a call's time is the smallest."""
    if job.address not in _channels:
        _channels[job.address] = grpc.insecure_channel(job.address)
    call = _channels[job.address].unary_unary(job.path)
    metadata = (("authorization", f"Bearer {job.token}"),)
    times: list[float] = []
    refused: dict[str, int] = {}
    began = now = time.perf_counter()
    number = 0
    while (number < len(job.bodies)) if job.once else (now - began < job.seconds):
        try:
            call(job.bodies[number % len(job.bodies)], metadata=metadata)
        except grpc.RpcError as error:
            code = error.code().name  # type: ignore[attr-defined]
            refused[code] = refused.get(code, 0) + 1
            now = time.perf_counter()
        else:
            after = time.perf_counter()
            times.append(after - now)
            now = after
        number += 1
    return Done(np.array(times), now - began, refused)


async def _together(job: Job) -> Done:
    """Several clients, up to eight a connection."""
    metadata = (("authorization", f"Bearer {job.token}"),)
    channels = [
        grpc.aio.insecure_channel(job.address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(-(-job.clients // 8))
    ]
    times: list[float] = []
    refused: dict[str, int] = {}
    upcoming = iter(range(len(job.bodies) if job.once else 1 << 60))

    async def client(number: int) -> None:
        call = channels[number // 8].unary_unary(job.path)
        for turn in upcoming:
            before = time.perf_counter()
            if not job.once and before - began >= job.seconds:
                return
            try:
                await call(job.bodies[turn % len(job.bodies)], metadata=metadata)
            except grpc.RpcError as error:
                code = error.code().name  # type: ignore[attr-defined]
                refused[code] = refused.get(code, 0) + 1
            else:
                times.append(time.perf_counter() - before)

    for channel in channels:
        await channel.channel_ready()
    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(job.clients)))
    seconds = time.perf_counter() - began
    for channel in channels:
        await channel.close()
    return Done(np.array(times), seconds, refused)


def _serve(pipe: Connection) -> None:
    while (job := pipe.recv()) is not None:
        pipe.send(_alone(job) if job.clients == 1 else asyncio.run(_together(job)))


class ClientProcess:
    """A process with clients in it."""

    def __init__(self) -> None:
        """Starts it."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()

    def start(self, job: Job) -> None:
        """Begins a job; `result` waits for its end."""
        self._pipe.send(job)

    @property
    def ready(self) -> bool:
        """Whether the job has ended."""
        return self._pipe.poll()

    def result(self) -> Done:
        """Returns what came of the job that was started."""
        done: Done = self._pipe.recv()
        return done

    def run(self, job: Job) -> Done:
        """Does a job."""
        self.start(job)
        return self.result()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the process."""
        self._pipe.send(None)
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()
