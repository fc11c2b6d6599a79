"""Several servers over the same engines, each a real process with a data folder of its own.

They share the engines and the keys of tokens. Every server keeps its port over restarts, so that clients find it again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memos_sdk import AsyncClient
from memos_sdk._core.heads import HeadStore
from memos_sdk._core.retry import RetryPolicy
from tools.engines import guard

PATIENCE: Final = float(os.environ.get("MEMOS_TEST_PATIENCE", "1"))
"""A factor for everything that is waited for: above 1 on a machine that has much else to do."""

_START_S: Final = 90.0 * PATIENCE
_ONCE: Final = RetryPolicy(max_attempts=1)
_ROOT: Final = Path(__file__).resolve().parents[2]

BRISK: Final[dict[str, str]] = {
    "MEMOS_SEARCH__INDEX_WAIT_S": f"{3 * PATIENCE:g}",
    "MEMOS_HEALTH__INTERVAL_S": "1",
    "MEMOS_HEALTH__TIMEOUT_S": f"{3 * PATIENCE:g}",
    "MEMOS_WATCH__HEARTBEAT_S": "1",
}
"""Settings that let a test see in seconds what takes minutes by default."""


def fresh() -> str:
    """Returns an id that no run of a test has used: engines may outlive runs, whose chances are the same."""
    return f"c{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True)
class Backends:
    """What the servers work on: the sections of their settings, `backend` and `config`."""

    record: Mapping[str, Any]
    index: Mapping[str, Any]
    blobs: Mapping[str, Any]

    def environment(self) -> dict[str, str]:
        """Returns the settings as environment variables."""
        found = {}
        for name, section in (("RECORD", self.record), ("INDEX", self.index), ("BLOBS", self.blobs)):
            found[f"MEMOS_{name}__BACKEND"] = section["backend"]
            found[f"MEMOS_{name}__CONFIG"] = json.dumps(section.get("config", {}))
        return found


EMBEDDED: Final = Backends({"backend": "sqlite"}, {"backend": "embedded"}, {"backend": "filesystem"})
"""One server's own files: for tests of the tests."""


class ServerNode:
    """One server process. Blocking; from a test that serves an event loop, call it in a thread."""

    def __init__(
        self,
        folder: Path,
        backends: Backends,
        keys: Path,
        *,
        settings: Mapping[str, str] | None = None,
        variant: Mapping[str, Any] | None = None,
    ) -> None:
        """Describes a server; nothing runs yet.

        Args:
            folder: Its data folder; its log is beside it.
            backends: What it works on.
            keys: The folder of keys that all servers share.
            settings: Further settings, as environment variables.
            variant: Changes that `server_variant` knows.
        """
        self.data = folder
        self.log = folder.with_name(f"{folder.name}.log")
        self.variant = dict(variant or {})
        self._backends, self._keys, self._settings = backends, keys, dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self.address = ""

    @property
    def token(self) -> str:
        """The local administrator's token."""
        return (self.data / "admin.token").read_text(encoding="utf-8").strip()

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Starts the process, and does not wait until it listens."""
        info = self.data / "server.json"
        info.unlink(missing_ok=True)
        self.data.parent.mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MEMOS_")}
        environment |= {"MEMOS_EMBEDDER__BACKEND": "none", "MEMOS_EMBEDDING__DEFAULT_MODEL": "none"}
        environment |= {"MEMOS_KEYS__FOLDER": str(self._keys)} | self._backends.environment() | BRISK | self._settings
        environment["MEMOS_LOG__LEVEL"] = os.environ.get("MEMOS_TEST_LOG_LEVEL", "info")
        environment["MEMOS_TEST_VARIANT"] = json.dumps(self.variant)
        module = "tests.engines.server_variant" if self.variant else "memos_server"
        command = [sys.executable, "-m", module, "serve", "--data", str(self.data), "--listen"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, f"127.0.0.1:{self._port}"], stdout=log, stderr=log, env=environment, cwd=_ROOT
            )
        guard.tie(self._process.pid)

    def listens(self, timeout_s: float = _START_S) -> None:
        """Waits until it listens.

        Raises:
            RuntimeError: It ended, or does not listen in time; the text is its log.
        """
        info = self.data / "server.json"
        deadline = time.monotonic() + timeout_s
        while not (info.exists() and info.stat().st_size):
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(self.log.read_text(encoding="utf-8", errors="replace")[-4000:])
            time.sleep(0.02)
        self.address = json.loads(info.read_text(encoding="utf-8"))["address"]
        self._port = int(self.address.rpartition(":")[2])

    def start(self) -> None:
        """Starts the server; returns when it listens."""
        self.launch()
        self.listens()

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the process as a crash would; does nothing when it has ended."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ends the process as an operator would; returns its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        assert process is not None
        if process.poll() is None:
            process.send_signal(number)
        try:
            status = process.wait(timeout=45 * PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(f"the server did not end: {self.log.read_text(errors='replace')[-4000:]}") from None
        finally:
            guard.untie(process.pid)
        return status


@dataclass
class Cluster:
    """N servers over the same engines, and the clients of them; an asynchronous context manager.

    Attributes:
        nodes: The servers.
        heads: What all clients together have seen of the logs; one that is rewritten raises HeadMismatch in any.
    """

    folder: Path
    backends: Backends
    count: int = 3
    settings: Mapping[str, str] = field(default_factory=dict)
    variants: Sequence[Mapping[str, Any]] = ()
    nodes: list[ServerNode] = field(default_factory=list)
    heads: HeadStore = field(default_factory=HeadStore)
    _clients: list[AsyncClient] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        """Starts all servers at once."""
        for number in range(self.count):
            self.add(self.variants[number] if number < len(self.variants) else {})
        try:
            await asyncio.gather(*(asyncio.to_thread(node.start) for node in self.nodes))
        except BaseException:
            self._kill_all()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the clients and ends the servers; one that does not end by itself is an error of the test."""
        for client in self._clients:
            await client.close()
        try:
            if error is None:
                await asyncio.gather(*(asyncio.to_thread(node.stop) for node in self.nodes if node.running))
        finally:
            self._kill_all()

    def _kill_all(self) -> None:
        for node in self.nodes:
            if node.running:
                node.kill()

    def add(self, variant: Mapping[str, Any]) -> ServerNode:
        """Describes one more server, which does not run yet."""
        data = self.folder / f"server{len(self.nodes)}"
        node = ServerNode(data, self.backends, self.folder / "keys", settings=self.settings, variant=variant)
        self.nodes.append(node)
        return node

    def client(self, number: int, timeout_s: float = 15.0) -> AsyncClient:
        """Returns a new client of a server, which never repeats a call by itself."""
        node = self.nodes[number % len(self.nodes)]
        made = AsyncClient(node.address, token=node.token, timeout=timeout_s * PATIENCE, retry=_ONCE, heads=self.heads)
        self._clients.append(made)
        return made

    async def healthy(self, *numbers: int, timeout_s: float = 60.0) -> float:
        """Waits until servers (all that run, by default) say SERVING for all that they depend on; returns how long it
        took, seconds.

        Raises:
            AssertionError: One does not in time.
        """
        begun = time.monotonic()
        wanted = numbers or [number for number, node in enumerate(self.nodes) if node.running]
        for number in wanted:
            for service in ("", *(f"mip.dependency.{part}" for part in ("record", "index", "blobs"))):
                while await health(self.nodes[number].address, service) != "SERVING":
                    assert time.monotonic() - begun < timeout_s * PATIENCE, (
                        f"server {number}: {service or 'it'} is not SERVING"
                    )
                    await asyncio.sleep(0.1)
        return time.monotonic() - begun


async def health(address: str, service: str = "") -> str:
    """Returns what a server says of its health; `GONE` when it does not answer."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=3 * PATIENCE
            )
        except grpc.RpcError:
            return "GONE"
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name
