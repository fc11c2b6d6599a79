"""A way to Neo4j that can be cut exactly at a commit: before the database hears of it, or before it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

# A chunk of two bytes, the message COMMIT without fields, and the end of the message (Bolt, "Message exchange").
_COMMIT = b"\x00\x02\xb0\x12\x00\x00"

Hook = Callable[[], Awaitable[None]]


class BoltCut:
    """Forwards connections to Neo4j, and cuts the ones that it is told to cut.

    Attributes:
        cuts: What happens at the next commits, in turn: `before` it is forwarded, or `after`, when the database does it
            and its answer is lost. Empty forwards all.
        commits: How many commits were seen.
        then: Run right after a cut, for whatever else happens then.
        refuse: Whether new connections are closed at once.
        silent: Whether nothing is forwarded, and nothing said of it.
    """

    def __init__(self, uri: str) -> None:
        """Forwards to the database at `uri`."""
        parts = urlsplit(uri)
        self._target = parts.hostname or "127.0.0.1", parts.port or 7687
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.cuts: list[str] = []
        self.commits = 0
        self.then: Hook | None = None
        self.refuse = False
        self.silent = False

    async def start(self) -> str:
        """Listens and returns the address."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"bolt://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Closes everything."""
        assert self._server is not None
        self._server.close()
        self.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def drop(self) -> None:
        """Cuts all connections."""
        for writer in list(self._open):
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.close()
            return
        try:
            up, down = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        self._open |= {writer, down}
        deaf = asyncio.Event()
        back = asyncio.create_task(self._back(up, writer, deaf))
        try:
            while data := await reader.read(65536):
                cut = ""
                if self.silent:
                    continue
                if data.endswith(_COMMIT):
                    self.commits += 1
                    cut = self.cuts.pop(0) if self.cuts else ""
                if cut == "before":
                    break
                if cut:
                    deaf.set()
                down.write(data)
                await down.drain()
                if cut:
                    # The answer comes, and is kept from the client.
                    await back
                    break
            else:
                cut = ""
            if cut:
                # Where the database was not asked to commit, the end of its connection ends the transaction too.
                writer.transport.abort()
                down.close()
                if self.then is not None:
                    await self.then()
        except OSError:
            pass
        finally:
            back.cancel()
            with suppress(asyncio.CancelledError):
                await back
            self._open -= {writer, down}
            for each in (writer, down):
                each.close()

    async def _back(self, up: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await up.read(65536):
                if deaf.is_set():
                    return
                writer.write(data)
                await writer.drain()
