"""Before a call is anybody's: bytes that unpack to more, and connections that say nothing."""

from __future__ import annotations

import asyncio
import struct
import time
import zlib
from pathlib import Path

import pytest

from tests.conftest import World
from tests.support.mip import Mip


def header(name: str, value: str) -> bytes:
    """Returns a header as HPACK writes it without any table (RFC 7541, 6.2.2)."""
    parts = [text.encode() for text in (name, value)]
    return b"\0" + b"".join(bytes([len(part)]) + part for part in parts)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Returns an HTTP/2 frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


async def send_packed(address: str, encoding: str, packed: bytes) -> bytes:
    """Sends a compressed message without a token and returns what the server answers."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    names = {":method": "POST", ":scheme": "http", ":path": "/mip.v1.ServerService/GetCapabilities", ":authority": "x"}
    names |= {"content-type": "application/grpc", "te": "trailers", "grpc-encoding": encoding}
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
    writer.write(frame(1, 4, 1, b"".join(header(name, value) for name, value in names.items())))
    message = b"\x01" + struct.pack(">I", len(packed)) + packed
    for start in range(0, len(message), 16_384):
        writer.write(frame(0, 1 if start + 16_384 >= len(message) else 0, 1, message[start : start + 16_384]))
    answer = b""
    try:
        async with asyncio.timeout(2):
            while b"grpc-status" not in answer:
                piece = await reader.read(65_536)
                if not piece:
                    break
                answer += piece
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
    return answer


def resident_mib() -> int:
    """Returns the memory that this process has, the server among it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20


async def test_a_small_message_that_unpacks_to_a_large_one_is_not_unpacked(world: World, mip: Mip) -> None:
    squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
    pieces = [squeeze.compress(bytes(2**20)) for _ in range(200)]
    bomb = b"".join(pieces) + squeeze.flush()
    assert len(bomb) < 1_000_000
    peak = before = resident_mib()
    attack = asyncio.create_task(send_packed(world.server.address, "gzip", bomb))
    while not attack.done():
        await asyncio.wait({attack}, timeout=0.002)
        peak = max(peak, resident_mib())
    assert b"grpc-status" in attack.result()
    assert peak - before < 50, f"200 MiB were unpacked: {peak - before} MiB more"
    assert (await mip.GetCapabilities()).server_version


@pytest.mark.long
async def test_a_connection_that_says_nothing_is_closed(world: World, mip: Mip) -> None:
    host, _, port = world.server.address.rpartition(":")
    begun = time.monotonic()
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
    assert (await mip.GetCapabilities()).server_version
    async with asyncio.timeout(30):
        for reader, writer in silent:
            while await reader.read(4096):
                pass
            writer.close()
    assert 5 < time.monotonic() - begun < 30
