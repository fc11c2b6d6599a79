"""The record's files before SQLite opens them: whether commits are lost in them, and that what they hold is durable.

After a crash SQLite reads its write-ahead log up to the first frame that does not match its checksum, and forgets the
rest: right for a commit that was being written, which nobody was told of, and silent about damage. Two things tell the
one from the other. A frame's checksum begins with that of the frame before, so frames behind a damaged one can still be
checked; and since each commit is synced before the next one begins, a whole commit with another frame behind it was
acknowledged. And the shared memory of a server that was killed names the last frame that was committed.

The layout is SQLite's documented one (sqlite.org/walformat.html, sqlite.org/fileformat2.html).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from memos_server.errors import MipError

_HEADER: Final = 32
_FRAME: Final = 24
_MAGIC: Final = 0x377F0682
_BATCH_BYTES: Final = 16 * 2**20
_INDEX_VERSION: Final = 3007000


def settle(record: Path) -> None:
    """Checks the files of a record that no process uses, and syncs its log.

    A server that was killed leaves commits in the kernel's cache that were not synced yet. Whoever reads them after a
    restart is told of them, so they are made durable first.

    Args:
        record: The database file; its log lies beside it.

    Raises:
        MipError: DATA_CORRUPT when commits that were acknowledged cannot be read.
    """
    log = record.with_name(f"{record.name}-wal")
    if _size(record) == 0 and (record.parent / "keys" / "token.ed25519.pem").exists():
        # The key is made after the record, and SQLite would begin a new one.
        raise MipError(
            "DATA_CORRUPT",
            f"the record {record} is missing or empty, though a server has used the folder; restore the file from a "
            "backup, or name a new folder with --data to begin anew",
        )
    if not log.exists():
        return
    lost = lost_commits(record)
    if lost:
        raise MipError("DATA_CORRUPT", f"{lost}; restore the folder from a backup")
    descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lost_commits(record: Path) -> str:
    """Returns what the write-ahead log has lost of what was acknowledged, and up to where it is whole; empty when
    nothing is known to be lost."""
    log = record.with_name(f"{record.name}-wal")
    with open(log, "rb") as file:
        size = _size(log)
        found = _Log.of(file.read(_HEADER), size)
        if found is None:
            # The header is synced before the first frame is written.
            return f"{log} is damaged in its header, and acknowledged commits may lie behind" if size > _HEADER else ""
        good, behind = found.read(file.fileno())
    if not behind and good >= _last_committed(record, found):
        return ""
    end = _HEADER + good * found.frame
    return f"{log} is damaged or cut off at byte {end}, and acknowledged commits lay behind"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _Log:
    """A write-ahead log with a sound header."""

    def __init__(self, order: str, page: int, salt: bytes, checksum: tuple[int, int], frames: int) -> None:
        self.order = order
        self.frame = _FRAME + page
        self.salt = salt
        self.checksum = checksum
        self.frames = frames

    @classmethod
    def of(cls, header: bytes, size: int) -> _Log | None:
        """Reads the header; None when there is none, or it does not match its checksum."""
        if len(header) < _HEADER:
            return None
        magic, _, page = struct.unpack(">3I", header[:12])
        if magic & ~1 != _MAGIC or page < 512 or page > 65536 or page & (page - 1):
            return None
        order = ">" if magic & 1 else "<"
        found = cls(order, page, header[16:24], (0, 0), (size - _HEADER) // (_FRAME + page))
        words = np.frombuffer(header[:24], np.dtype(f"{order}u4"))[None, :]
        sums = _checksums(words, np.zeros((1, 2), np.uint32))
        found.checksum = (int(sums[0, 0]), int(sums[0, 1]))
        return found if struct.unpack(">2I", header[24:32]) == found.checksum else None

    def read(self, descriptor: int) -> tuple[int, bool]:
        """Returns how many frames are whole and committed, and whether acknowledged commits lie behind them.

        Frames behind a damaged one count as written after it when each matches the checksum of the one before; a
        commit among them is acknowledged when one more frame follows it.
        """
        step = max(1, _BATCH_BYTES // self.frame)
        previous = np.array([self.checksum], np.uint32)
        good = number = 0
        damaged = False
        committed = False
        while number < self.frames:
            count = min(step, self.frames - number)
            raw = os.pread(descriptor, count * self.frame, _HEADER + number * self.frame)
            frames = np.frombuffer(raw[: len(raw) // self.frame * self.frame], np.uint8).reshape(-1, self.frame)
            if not len(frames):
                break
            stored, fits = self._check(frames, previous)
            commits = list[int](frames[:, 4:8].max(axis=1))
            for whole, commit in zip(list[bool](fits), commits, strict=True):
                number += 1
                if not damaged and whole:
                    good = number if commit else good
                elif not damaged:
                    damaged = True
                    committed = False
                elif not whole:
                    committed = False
                elif committed:
                    return good, True
                elif commit:
                    committed = True
            previous = stored[-1:]
        return good, False

    def _check(
        self, frames: NDArray[np.uint8], previous: NDArray[np.uint32]
    ) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Returns the checksums that the frames store, and which frames match theirs."""
        stored = np.ascontiguousarray(frames[:, 16:24]).view(">u4").astype(np.uint32)
        before = np.concatenate([previous, stored[:-1]])
        body = np.ascontiguousarray(np.concatenate([frames[:, :8], frames[:, _FRAME:]], axis=1))
        sums = _checksums(body.view(np.dtype(f"{self.order}u4")), before)
        salted = (frames[:, 8:16] == np.frombuffer(self.salt, np.uint8)).all(axis=1)
        return stored, salted & (sums == stored).all(axis=1)


def _checksums(words: NDArray[np.uint32], start: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Returns SQLite's checksum of each row of 32-bit words, an even number of them, from a start each."""
    columns = np.ascontiguousarray(words.T).astype(np.uint32)
    first, second = start[:, 0].copy(), start[:, 1].copy()
    for place in range(0, len(columns), 2):
        first += columns[place] + second
        second += columns[place + 1] + first
    return np.stack([first, second], axis=1)


def _last_committed(record: Path, log: _Log) -> int:
    """Returns the last frame of the log that the shared memory knows as committed; 0 when it knows nothing of this log.

    A server that was killed leaves it as it was; a power loss leaves any earlier state of it, or none. What it says
    holds when its checksum does and it is of the same log: it is written after the log was synced.
    """
    path = record.with_name(f"{record.name}-shm")
    try:
        with open(path, "rb") as file:
            raw = file.read(48)
    except FileNotFoundError:
        return 0
    if len(raw) < 48 or struct.unpack("=I", raw[:4])[0] != _INDEX_VERSION:
        return 0
    # In the order of this machine's bytes, as the shared memory itself; SQLite makes it anew on another machine.
    sums = _checksums(np.frombuffer(raw[:40], np.uint32)[None, :], np.zeros((1, 2), np.uint32))
    if struct.unpack("=2I", raw[40:48]) != (int(sums[0, 0]), int(sums[0, 1])):
        return 0
    (frames,) = struct.unpack("=I", raw[16:20])
    return int(frames) if raw[32:40] == log.salt else 0
