"""How an upload becomes a blob: its pieces are read back, hashed, and written as one object that appears at once.

The bytes that are hashed are those that the store gave back, and every request that writes them carries their SHA-256,
which the store checks before it takes them. A blob of one part is one request; a larger one is written in parts and
becomes an object only when all are there and the digest of the whole is right.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from memos_server.blob_stores.s3.bucket import AbsentError, Bucket, Stored
from memos_server.errors import MipError

PART_BYTES: Final = 8 * 2**20
"""The size of a part, bytes; 5 MiB is the least that S3 takes."""

MAX_PARTS: Final = 9000
"""The most parts; 10,000 are the most that S3 takes. Beyond, parts are larger."""

_AHEAD: Final = 3
"""How many parts are read ahead, and how many are written at once."""

T = TypeVar("T")


class Run(Protocol):
    """Runs blocking work in a thread of the store."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """Returns what the work returns."""


Segment = tuple[str, int, int]
"""Bytes of a piece: its name, where they begin, how many."""


def parts_of(pieces: Sequence[Stored], part_bytes: int) -> list[list[Segment]]:
    """Returns the parts of a blob, of equal size but for the last, as the segments of pieces that they are made of."""
    parts: list[list[Segment]] = []
    room = 0
    for piece in pieces:
        start = 0
        while start < piece.size:
            if not room:
                parts.append([])
                room = part_bytes
            taken = min(room, piece.size - start)
            parts[-1].append((piece.key, start, taken))
            start += taken
            room -= taken
    return parts


def part_size(size: int) -> int:
    """Returns how large the parts of a blob are, bytes."""
    least = -(-size // MAX_PARTS)
    return max(PART_BYTES, -(-least // 2**20) * 2**20)


async def compose(run: Run, bucket: Bucket, key: str, pieces: Sequence[Stored], size: int) -> bool:
    """Writes the blob that pieces make.

    Args:
        run: Runs what blocks.
        bucket: The bucket.
        key: The blob's name, which ends in its digest.
        pieces: The pieces, in order.
        size: Their size together.

    Returns:
        Whether they have the digest; without it nothing was written.

    Raises:
        AbsentError: A piece is gone: another server has finished the upload, or dropped it.
        MipError: BACKEND_UNAVAILABLE or STORAGE_FULL.
    """
    digest = key.rpartition("/")[2]
    parts = parts_of(pieces, part_size(size))
    if len(parts) > 1:
        return await _in_parts(run, bucket, key, parts, digest)

    def whole() -> bool:
        data = _read(bucket, parts[0]) if parts else b""
        if hashlib.sha256(data).hexdigest() != digest:
            return False
        bucket.put(key, data)
        return True

    return await run(whole)


async def _in_parts(run: Run, bucket: Bucket, key: str, parts: list[list[Segment]], digest: str) -> bool:
    upload = await run(partial(bucket.begin_parts, key))
    whole: Any = hashlib.sha256()
    reading: deque[asyncio.Future[bytes]] = deque()
    writing: deque[asyncio.Future[Mapping[str, object]]] = deque()
    written: list[Mapping[str, object]] = []
    waiting = iter(parts)
    try:
        for number in range(1, len(parts) + 1):
            while len(reading) < _AHEAD and (part := next(waiting, None)) is not None:
                reading.append(asyncio.ensure_future(run(partial(_read, bucket, part))))
            data = await reading[0]
            reading.popleft()
            await run(partial(whole.update, data))
            if len(writing) == _AHEAD:
                written.append(await writing[0])
                writing.popleft()
            writing.append(asyncio.ensure_future(run(partial(bucket.put_part, key, upload, number, data))))
            del data
        while writing:
            written.append(await writing[0])
            writing.popleft()
        if whole.hexdigest() == digest:
            with suppress(AbsentError):
                # Whether it is there now, the caller looks: the answer to the first try may have been lost.
                await run(partial(bucket.end_parts, key, upload, written))
            return True
    except BaseException:
        await _ended(reading, writing)
        # What cannot be dropped now is dropped when it is a day old.
        with suppress(MipError):
            await run(partial(bucket.drop_parts, key, upload))
        raise
    await run(partial(bucket.drop_parts, key, upload))
    return False


async def _ended(*running: Sequence[asyncio.Future[Any]]) -> None:
    """Waits for what still runs in threads: a part that is written later would stay."""
    for future in (each for group in running for each in group):
        with suppress(Exception, asyncio.CancelledError):
            await asyncio.shield(future)


def _read(bucket: Bucket, segments: Sequence[Segment]) -> bytes:
    found = []
    for key, start, length in segments:
        data, _ = bucket.read(key, start, length)
        if len(data) != length:
            raise AbsentError(key)
        found.append(data)
    return b"".join(found)
