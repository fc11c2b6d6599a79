"""The processes that are measured: a server as a user starts it, and a bare echo over the same transport."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

HERE = Path(__file__).resolve().parent
_START_S = 60.0


class Process:
    """A process of the benchmark that listens.

    Attributes:
        address: Where it listens.
        token: What its callers show.
        start_seconds: How long it took until it listened.
    """

    address: str
    token: str = ""
    start_seconds: float

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        """Starts the command; subclasses wait until it listens."""
        self._log = log.open("ab")
        self._began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, *command], env=dict(environment), stdout=subprocess.PIPE, stderr=self._log
        )
        self._measured = psutil.Process(self.process.pid)

    def cpu_seconds(self) -> float:
        """Returns the processor time that it has used."""
        times = self._measured.cpu_times()
        return float(times.user + times.system)

    def resident_bytes(self) -> int:
        """Returns its resident memory."""
        return int(self._measured.memory_info().rss)

    def stop(self) -> None:
        """Ends it as an operator would, and waits."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=120)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        self.stop()


class MemosServer(Process):
    """`python -m memos_server serve` on a folder."""

    def __init__(
        self,
        data: Path,
        *,
        embedder: bool = False,
        settings: Mapping[str, str] | None = None,
        start_s: float = _START_S,
    ) -> None:
        """Starts a server.

        Args:
            data: Its data folder.
            embedder: True runs the embedding model; else vectors must be supplied.
            settings: More settings, as environment variables.
            start_s: How long it may take to listen, seconds.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MEMOS_")}
        if not embedder:
            environment |= {"MEMOS_EMBEDDER__BACKEND": "none"}
        environment |= settings or {}
        self.data = data
        info = data / "server.json"
        info.unlink(missing_ok=True)
        log = data.parent / f"{data.name}.log"
        command = ["-m", "memos_server", "serve", "--data", str(data), "--listen", "127.0.0.1:0"]
        super().__init__(command, environment, log)
        while not info.exists():
            if self.process.poll() is not None or time.perf_counter() - self._began > start_s:
                self.stop()
                raise RuntimeError(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.005)
        self.start_seconds = time.perf_counter() - self._began
        self.address = json.loads(info.read_text())["address"]
        self.token = (data / "admin.token").read_text().strip()

    def disk_bytes(self) -> dict[str, int]:
        """Returns the bytes of the data folder by its top entries."""
        sizes: dict[str, int] = {}
        for path in self.data.rglob("*"):
            if path.is_file():
                top = path.relative_to(self.data).parts[0]
                sizes[top] = sizes.get(top, 0) + path.stat().st_blocks * 512
        return sizes


class EchoServer(Process):
    """A bare grpc.aio server that answers any method with prepared bytes."""

    def __init__(self, folder: Path, response_bytes: int) -> None:
        """Starts an echo whose responses have so many bytes."""
        command = [str(HERE / "echo_server.py"), str(response_bytes)]
        super().__init__(command, os.environ, folder / "echo.log")
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().decode().strip()
        self.start_seconds = time.perf_counter() - self._began
        if not self.address:
            raise RuntimeError("the echo server did not start")
