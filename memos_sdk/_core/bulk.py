"""Cutting a stream of memories into the frames of BulkAddMemories, so that it can be sent again byte for byte."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import overload

from memos_sdk import _stubs
from memos_sdk._gen import wire
from memos_sdk.errors import UsageError

# What stands for the end of the input; None may be an item of it, a wrong one.
END = object()
# Frames stay below the 4 MiB that gRPC servers accept unless told otherwise, and commits below what servers of default
# settings put into one.
FRAME_MEMORIES = 1_000
FRAME_BYTES = 2_500_000
COMMIT_MEMORIES = 100_000
COMMIT_BYTES = 400_000_000
# What has been sent stays in memory up to this size, beyond it in a temporary file.
_SPOOL_BYTES = 8 * 2**20


class Names(Sequence[str]):
    """The names of the memories that were added, in the order of the input; each is made when it is asked for."""

    def __init__(self, cube: str, ids: list[str]) -> None:
        """Keeps the ids."""
        self._prefix = f"{cube}/memories/"
        self._ids = ids

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """Returns a name, or several."""
        if isinstance(index, slice):
            return [self._prefix + id for id in self._ids[index]]
        return self._prefix + self._ids[index]

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self._ids)

    def __eq__(self, other: object) -> bool:
        """Compares with any sequence of names."""
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        """Shows how many there are, and the first."""
        return f"<{len(self)} names" + (f" from {self[0]}>" if self._ids else ">")


class Ids:
    """Chooses ids, so that a bulk addition's names are known without the server listing them.

    With a request_id of the caller they follow from it, for the same input must give the same request when it is sent
    again by another process; else they are UUIDs of version 7, as the server itself would choose.
    """

    def __init__(self, request_id: str) -> None:
        """Starts; a request_id that is no UUID is left for the server to refuse."""
        try:
            self._namespace = uuid.UUID(request_id) if request_id else None
        except ValueError:
            self._namespace = None
        self._count = 0

    def next(self) -> str:
        """Returns the next id."""
        self._count += 1
        if self._namespace is None:
            return uuid7()
        return str(uuid.uuid5(self._namespace, str(self._count)))


def uuid7() -> str:
    """Returns a UUID of version 7 (RFC 9562): milliseconds since 1970, then 74 random bits."""
    random = int.from_bytes(os.urandom(10))
    value = (time.time_ns() // 1_000_000) << 80 | 7 << 76 | (random >> 68) << 64 | 2 << 62 | random & (2**62 - 1)
    return str(uuid.UUID(int=value & (2**128 - 1)))


def part_request_id(request_id: str, part: int) -> str:
    """Returns the request_id of a stream's commit: the caller's own for the first, derived from it for the others."""
    if not request_id:
        return str(uuid.uuid4())
    try:
        return request_id if part == 0 else str(uuid.uuid5(uuid.UUID(request_id), f"commit {part}"))
    except ValueError:
        return request_id


class BulkFrames:
    """The frames of one BulkAddMemories, made as memories come and kept to be sent again after a break.

    Attributes:
        count: The memories taken.
        full: True when another memory would not fit into the commit any more.
        closed: True once the last frame is made.
    """

    def __init__(
        self, cube: str, cause: str, expected_revision: int, request_id: str, max_memories: int = COMMIT_MEMORIES
    ) -> None:
        """Starts with the header."""
        self._max_memories = max_memories
        self._frame = wire.BulkAddMemoriesRequest()
        self._size = 0
        self._total = 0
        self._spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - closed by close()
        self._sizes: list[int] = []
        self.count = 0
        self.closed = False
        header = {
            "parent": cube,
            "cause": cause,
            "expected_revision": expected_revision,
            "request_id": request_id,
        }
        self._keep(_stubs.BULK_ADD_MEMORIES(header=header))

    @property
    def full(self) -> bool:
        """True when another memory would not fit into the commit any more."""
        return self.count >= self._max_memories or self._total >= COMMIT_BYTES

    def made(self) -> Iterator[bytes]:
        """Yields the frames made so far."""
        at = 0
        for size in list(self._sizes):
            self._spool.seek(at)
            yield self._spool.read(size)
            at += size

    def take(self, memory: wire.Memory) -> bytes | None:
        """Takes a memory in and returns the frame that it completes; None while there is none."""
        # The tag and the length of an element take up to 8 bytes.
        weight = memory.ByteSize() + 8
        done = None
        batch = self._frame.batch.memories
        if batch and (len(batch) >= FRAME_MEMORIES or self._size + weight > FRAME_BYTES):
            done = self._cut()
            batch = self._frame.batch.memories
        batch.append(memory)
        self._size += weight
        self._total += weight
        self.count += 1
        return done

    def finish(self) -> Iterator[bytes]:
        """Yields the frames that end the stream."""
        last = [self._cut()] if self._frame.batch.memories else []
        last.append(self._keep(_stubs.BULK_ADD_MEMORIES(finish=True)))
        self.closed = True
        yield from last

    def close(self) -> None:
        """Gives the kept frames up."""
        self._spool.close()

    def _cut(self) -> bytes:
        data = self._keep(self._frame)
        self._frame, self._size = wire.BulkAddMemoriesRequest(), 0
        return data

    def _keep(self, frame: wire.BulkAddMemoriesRequest) -> bytes:
        data: bytes = frame.SerializeToString()
        try:
            self._spool.seek(0, os.SEEK_END)
            self._spool.write(data)
        except OSError as error:
            raise UsageError(
                f"what is sent cannot be kept in {tempfile.gettempdir()}: {error.strerror}",
                reason="FILE_UNWRITABLE",
                remedy="Free space there, or name another folder with TMPDIR.",
            ) from None
        self._sizes.append(len(data))
        return data
