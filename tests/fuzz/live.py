"""A real server on a loop of its own thread, for tests whose inputs Hypothesis draws."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import grpc

from memos_server._pb.mip.v1 import options_pb2
from memos_server.errors import reason_rules
from tests.conftest import World
from tests.fuzz.messages import Pool
from tests.support.mip import METHODS, Label, Mip, Relation, RpcError, path_of, text

T = TypeVar("T")

SERVER_FAULTS = frozenset({"INTERNAL", "UNKNOWN", "DATA_CORRUPT"})
"""Reasons and codes that no request may bring about."""

_EMPTY = f"sha256:{hashlib.sha256(b'').hexdigest()}"
_LOST_STATUS = "Internal error from Core"
"""What grpc.aio's client says of an upload that the server ended while a frame larger than the window was being sent:
its own write failed before it saw the answer. The server's incidents are looked at all the same."""
_FRAMES = 50
_PATIENCE_S = 30.0


class _Incidents(logging.Handler):
    """Keeps what the server logged as its own fault."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        self.found.append(f"{record.getMessage()} {cause!r}")


class Live:
    """A server, its administrator, and what exists there."""

    def __init__(self, data: Path, **settings: Any) -> None:
        """Starts a server on a folder."""
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="server under attack", daemon=True)
        self._thread.start()
        self.world = World(data, **settings)
        self.pool = Pool()
        self.incidents = _Incidents()
        logging.getLogger("memos_server").addHandler(self.incidents)
        logging.getLogger("grpc").addHandler(self.incidents)
        self.run(self.world.start())
        self.mip: Mip = self.run(self._caller())
        self._cubes = 0

    async def _caller(self) -> Mip:
        return self.world.admin

    def run(self, work: Coroutine[Any, Any, T], patience_s: float = 120.0) -> T:
        """Runs work on the server's loop."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(patience_s)

    def close(self) -> None:
        """Stops the server."""
        self.run(self.world.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)
        self.loop.close()
        for name in ("memos_server", "grpc"):
            logging.getLogger(name).removeHandler(self.incidents)

    def fresh_cube(self) -> str:
        """Makes a cube with something of everything, puts the names into the pool, and checks that all of it works."""
        return self.run(self._fresh_cube())

    async def _fresh_cube(self) -> str:
        self._cubes += 1
        mip, pool = self.mip, self.pool
        name = (await mip.CreateCube(cube_id=f"target{self._cubes}")).cube.name
        memories = [text(f"Ana prefers tea {number}.", tags=["a"], labels=[Label(key="a")]) for number in range(4)]
        added = (await mip.AddMemories(parent=name, memories=memories)).memories
        assert len(added) == 4
        edge = Relation(source=added[0].name, target=added[1].name, type="RELATES_TO")
        await mip.CreateRelations(parent=name, relations=[edge])
        session = (await mip.CreateSession(parent=name)).session
        found = await mip.SearchMemories(cubes=[name], query="tea", mode=1)
        assert len(found.hits) == 4
        pool.add(
            {
                options_pb2.FORMAT_CUBE_NAME: [name],
                options_pb2.FORMAT_MEMORY_NAME: [memory.name for memory in added],
                options_pb2.FORMAT_SESSION_NAME: [session.name],
                options_pb2.FORMAT_COMMIT_NAME: [f"{name}/commits/{number}" for number in (1, 2, 3, 2**62)],
                options_pb2.FORMAT_JOB_NAME: [f"{name}/jobs/compaction-{number:012d}" for number in range(3, 20)],
                options_pb2.FORMAT_GRANT_RESOURCE: [name, added[0].name, "server"],
                options_pb2.FORMAT_RELATION_TYPE: ["RELATES_TO", "PARENT_OF"],
                options_pb2.FORMAT_BLOB_DIGEST: [_EMPTY, "sha256:" + "0" * 64],
                options_pb2.FORMAT_PRINCIPAL_NAME: [f"principals/someone{self._cubes}"],
            }
        )
        await mip.CreatePrincipal(principal_id=f"someone{self._cubes}")
        return str(name)

    async def verify_all(self) -> None:
        """Checks that the log of every cube still verifies, whatever was done to it."""
        token = ""
        while True:
            page = await self.mip.ListCubes(page_size=1000, page_token=token, show_deleted=True)
            for cube in page.cubes:
                verified = await self.mip.VerifyCube(name=cube.name)
                assert verified.valid, f"{cube.name}: {verified.findings}"
            token = page.next_page_token
            if not token:
                return

    def send(self, rpc: str, frames: Sequence[bytes]) -> str:
        """Sends requests as bytes and returns the reason of the answer, empty for success.

        Raises:
            AssertionError: The answer is the server's own fault, or contradicts the table of reasons.
        """
        reason = self.run(self._send(rpc, frames))
        assert not self.incidents.found, f"{rpc}: {self.incidents.found}"
        return reason

    async def _send(self, rpc: str, frames: Sequence[bytes]) -> str:
        method = METHODS[rpc]
        try:
            async with asyncio.timeout(_PATIENCE_S):
                if method.server_streaming:
                    await self._read(path_of(method), frames[0])
                elif method.client_streaming:
                    await self.mip.channel.stream_unary(path_of(method))(iter(frames), metadata=self.mip.metadata)
                else:
                    await self.mip.channel.unary_unary(path_of(method))(frames[0], metadata=self.mip.metadata)
        except grpc.RpcError as error:
            seen = RpcError(error)
            if method.client_streaming and seen.message == _LOST_STATUS:
                return ""
            return _judged(rpc, seen)
        except TimeoutError:
            raise AssertionError(f"{rpc} hangs") from None
        return ""

    async def _read(self, path: str, body: bytes) -> None:
        call = self.mip.channel.unary_stream(path)(body, metadata=self.mip.metadata)
        try:
            async with asyncio.timeout(0.05 if path.endswith("WatchCube") else _PATIENCE_S):
                number = 0
                async for _ in call:
                    number += 1
                    if number >= _FRAMES:
                        break
        except TimeoutError:
            if not path.endswith("WatchCube"):
                raise
        finally:
            call.cancel()


def _judged(rpc: str, error: RpcError) -> str:
    assert error.reason, f"{rpc}: {error.code} without a reason: {error.message}"
    assert error.code not in SERVER_FAULTS, f"{rpc}: {error}"
    assert error.reason not in SERVER_FAULTS, f"{rpc}: {error}"
    assert error.code == reason_rules()[error.reason].code, f"{rpc}: {error}"
    assert error.metadata["remedy"] == reason_rules()[error.reason].remedy
    assert "Traceback" not in error.message
    return error.reason
