"""A caller that speaks HTTP/2 by hand, and so can do what no gRPC client does: announce a message and not send it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_ACK = 1
_END_STREAM = 1
_FRAME = 16_384
_ZEROS = memoryview(bytes(8 * 2**20))


def header(name: str, value: str) -> bytes:
    """Returns a header as HPACK writes it without any table (RFC 7541, 6.2.2)."""
    return b"\0" + b"".join(_length(len(text)) + text for text in (name.encode(), value.encode()))


def _length(size: int) -> bytes:
    if size < 127:
        return bytes([size])
    rest, out = size - 127, bytearray([127])
    while rest >= 128:
        out.append(rest % 128 | 128)
        rest //= 128
    return bytes([*out, rest])


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Returns an HTTP/2 frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Exchange:
    """A call, whose request is sent as far as the server permits.

    Attributes:
        sent: The bytes of its request that were sent.
        answer: Header bytes of the server's answer, as they came.
        ended: Whether the server has ended it.
        end: Whether its request ends after what is left to send.
    """

    def __init__(self, window: int, request: memoryview, end: bool) -> None:
        """Has sent nothing."""
        self.sent = 0
        self.answer = b""
        self.ended = asyncio.Event()
        self.end = end
        self._window = window
        self._request = request

    def give(self, more: int) -> None:
        """Notes that the server takes more of it."""
        self._window += more

    def take(self, at_most: int) -> tuple[memoryview, bool]:
        """Returns the next piece that may be sent now, and whether it is the last of the request."""
        size = max(0, min(self._window, len(self._request) - self.sent, at_most, _FRAME))
        piece = self._request[self.sent : self.sent + size]
        self._window -= size
        self.sent += size
        return piece, self.end and self.sent == len(self._request)


class Connection:
    """A connection, which sends for each of its calls as much as the server's windows permit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speaks over an open connection."""
        self._reader = reader
        self._writer = writer
        self._window = 65_535
        self._first_window = 65_535
        self._calls: dict[int, Exchange] = {}
        self._next = 1
        self._settled = asyncio.Event()
        self._may_send = asyncio.Event()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._send())]

    @classmethod
    async def open(cls, address: str) -> Connection:
        """Connects to `HOST:PORT` and waits for the server's settings."""
        host, _, port = address.rpartition(":")
        connection = cls(*await asyncio.open_connection(host, int(port)))
        connection._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(_SETTINGS, 0, 0, b""))
        async with asyncio.timeout(10):
            await connection._settled.wait()
        return connection

    def half(self, path: str, announced: int, metadata: Mapping[str, str] | None = None) -> Exchange:
        """Begins a call that announces a message of so many bytes, at most 8 MiB, and never sends the last one."""
        self._writer.write(self._headers(path, metadata or {}))
        call = self._begin(_ZEROS[: announced - 1], end=False)
        prefix = b"\0" + struct.pack(">I", announced)
        call.give(-len(prefix))
        self._window -= len(prefix)
        self._writer.write(frame(_DATA, 0, self._next - 2, prefix))
        return call

    def call(self, path: str, request: bytes, metadata: Mapping[str, str] | None = None) -> Exchange:
        """Calls with the bytes of a request's DATA frames, the message's prefix among them."""
        self._writer.write(self._headers(path, metadata or {}))
        return self._begin(memoryview(request), end=True)

    def _headers(self, path: str, metadata: Mapping[str, str]) -> bytes:
        names = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
        names |= {"content-type": "application/grpc", "te": "trailers", **metadata}
        fields = b"".join(header(name, value) for name, value in names.items())
        return frame(_HEADERS, 4, self._next, fields)

    def _begin(self, request: memoryview, *, end: bool) -> Exchange:
        call = self._calls[self._next] = Exchange(self._first_window, request, end)
        self._next += 2
        self._may_send.set()
        return call

    async def close(self) -> None:
        """Hangs up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writer.close()

    async def _send(self) -> None:
        while True:
            await self._may_send.wait()
            self._may_send.clear()
            for number, call in list(self._calls.items()):
                while not call.ended.is_set():
                    piece, last = call.take(self._window)
                    if not piece:
                        break
                    self._window -= len(piece)
                    self._writer.write(frame(_DATA, last, number, bytes(piece)))
                    await self._writer.drain()

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
                self._frame(head[3], head[4], int.from_bytes(head[5:]), payload)
        except (asyncio.IncompleteReadError, ConnectionError):
            for call in self._calls.values():
                call.ended.set()

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        call = self._calls.get(number)
        if kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload), 6):
                key, value = struct.unpack(">HI", payload[at : at + 6])
                if key == 4:
                    for each in self._calls.values():
                        each.give(value - self._first_window)
                    self._first_window = value
            self._writer.write(frame(_SETTINGS, _ACK, 0, b""))
            self._settled.set()
            self._may_send.set()
        elif kind == _PING and not flags & _ACK:
            self._writer.write(frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW:
            more = int.from_bytes(payload)
            if number == 0:
                self._window += more
            elif call is not None:
                call.give(more)
            self._may_send.set()
        elif call is not None and kind in (_HEADERS, _RESET):
            if kind == _HEADERS:
                call.answer += payload
            if kind == _RESET or flags & _END_STREAM:
                call.ended.set()
