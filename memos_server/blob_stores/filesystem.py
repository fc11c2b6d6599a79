"""Blobs as files: `blobs/<cube uid>/<first two digits>/<hexadecimal digest>`, an unfinished upload with `.part` behind.

A blob becomes visible by a rename after its file was fsynced, and `finish` returns after its folders were: power loss
leaves either no blob or the whole one. Nothing here follows a symbolic link, and every name is checked before it
becomes a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from memos_server.blob_stores.threads import run_in
from memos_server.configs.secret_files import fsync_folder
from memos_server.errors import MipError
from memos_server.telemetry.probing import try_folder

PIECE_BYTES: Final = 2**20
"""The size of what `read` yields, in bytes."""

UPLOAD_LIFETIME_S: Final = 86_400
"""How long an upload that nobody continues is kept, in seconds."""

MAX_HASHES: Final = 256
"""The most uploads whose running SHA-256 is kept in memory; another one is hashed again when it goes on."""

_RETRY_S: Final = 60.0
"""When to try again where unfinished uploads take all room: it may come as soon as one of them is finished."""

_UID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

T = TypeVar("T")


def blob_path(cube_uid: str, digest: str) -> PurePosixPath:
    """Returns where a blob lies, relative to the data folder.

    Raises:
        ValueError: The uid is not a lower-case UUID.
        MipError: INVALID_FIELD when the digest is none.
    """
    if not _UID.fullmatch(cube_uid):
        raise ValueError("the cube's uid is not a lower-case UUID")
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise MipError("INVALID_FIELD", "A digest is sha256: and 64 lower-case hexadecimal digits")
    return PurePosixPath("blobs", cube_uid, found[1][:2], found[1])


class FilesystemBlobStore:
    """The BlobStore port on a local file system. Blocking work runs in the store's own threads."""

    def __init__(
        self,
        data_dir: str,
        max_blob_bytes: int = 16 * 2**30,
        threads: int = 4,
        max_unfinished_bytes: int = 64 * 2**30,
    ) -> None:
        """Makes the store.

        Args:
            data_dir: The data folder; blobs go to `blobs` in it.
            max_blob_bytes: The most bytes of a blob.
            threads: How many threads do the blocking work.
            max_unfinished_bytes: The most bytes of a cube's unfinished uploads together; 0 means no limit.

        Raises:
            ValueError: `max_unfinished_bytes` is negative.
        """
        self._root = Path(data_dir) / "blobs"
        self._max_blob_bytes = int(max_blob_bytes)
        self._threads = int(threads)
        self._max_unfinished_bytes = int(max_unfinished_bytes)
        if self._max_unfinished_bytes < 0:
            raise ValueError("max_unfinished_bytes must not be negative")
        self._unfinished: dict[Path, int] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._hashes: dict[Path, tuple[int, Any]] = {}
        self._hashes_lock = threading.Lock()
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """Prepares the store and drops uploads older than a day."""
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="blobs")
        await self._run(self._prepare)
        await self.expire()

    async def expire(self) -> None:
        """Drops uploads that nobody continued for a day."""
        for part in await self._run(self._expired):
            async with self._exclusive(part):
                await self._run(partial(self._discard_expired, part))

    async def close(self) -> None:
        """Waits for work under way and ends the threads."""
        pool, self._pool = self._pool, None
        self._hashes.clear()
        self._unfinished.clear()
        if pool is not None:
            await asyncio.get_running_loop().run_in_executor(None, pool.shutdown)

    async def size(self, cube_uid: str, digest: str) -> int | None:
        """Returns the blob's size, or None when it is absent."""
        path = self._path(cube_uid, digest)
        return await self._run(lambda: _regular_size(path))

    async def upload_size(self, cube_uid: str, digest: str) -> int:
        """Returns how many bytes of an unfinished upload are stored; 0 when there is none."""
        part = self._part(cube_uid, digest)
        return await self._run(lambda: _regular_size(part) or 0)

    async def append(self, cube_uid: str, digest: str, offset: int, data: bytes) -> None:
        """Appends to an upload.

        Raises:
            MipError: INVALID_STREAM when `offset` is not the stored size; FIELD_TOO_LARGE when the blob would be
                larger than a blob may be; STORAGE_FULL when the disk is; QUOTA_EXCEEDED.
        """
        part = self._part(cube_uid, digest)
        async with self._exclusive(part):
            await self._run(lambda: self._append(part, offset, data))

    def max_unfinished_upload_bytes(self) -> int:
        """See BlobStore."""
        return self._max_unfinished_bytes

    async def finish(self, cube_uid: str, digest: str, size: int) -> None:
        """Verifies size and SHA-256, fsyncs file and folders, and makes the blob visible; once it is, does nothing.

        Raises:
            MipError: DIGEST_MISMATCH (the upload is dropped); UPLOAD_INCOMPLETE when bytes are missing.
        """
        part, path = self._part(cube_uid, digest), self._path(cube_uid, digest)
        async with self._exclusive(part):
            await self._run(lambda: self._finish(part, path, size))

    async def read(self, cube_uid: str, digest: str, offset: int = 0, limit: int = 0) -> AsyncIterator[bytes]:
        """Yields the bytes in pieces of at most 1 MiB; `limit` 0 means to the end.

        The file stays open while it is read, so a blob that is deleted meanwhile is still read whole.

        Raises:
            MipError: BLOB_NOT_FOUND; DATA_CORRUPT when a whole read does not have the digest.
        """
        path = self._path(cube_uid, digest)
        # A list, so that a call cancelled while the file is being opened still closes it.
        opened: list[int] = []
        try:
            await self._run(lambda: opened.extend(_open_regular(path)))
            if not opened:
                raise MipError("BLOB_NOT_FOUND", "The blob does not exist", metadata={"digest": digest})
            whole = hashlib.sha256() if offset == 0 and limit == 0 else None
            position, left = max(offset, 0), limit
            while True:
                wanted = min(PIECE_BYTES, left) if limit else PIECE_BYTES
                piece = await self._run(_piece_reader(opened[0], wanted, position, whole)) if wanted else b""
                if not piece:
                    break
                position += len(piece)
                left -= len(piece)
                yield piece
            if whole is not None and f"sha256:{whole.hexdigest()}" != digest:
                raise MipError("DATA_CORRUPT", "The stored blob does not have its digest", metadata={"digest": digest})
        finally:
            for descriptor in opened:
                os.close(descriptor)

    async def delete(self, cube_uid: str, digest: str) -> None:
        """Erases the blob or an upload of it; absent is fine. Durable when it returns."""
        part, path = self._part(cube_uid, digest), self._path(cube_uid, digest)
        async with self._exclusive(part):
            await self._run(lambda: self._delete(part, path))

    async def free(self) -> int | None:
        """See BlobStore: what the file system has free for this user."""
        return await self._run(lambda: shutil.disk_usage(self._root).free)

    async def probe(self) -> None:
        """See BlobStore: whether the folder is there and takes bytes."""
        await asyncio.to_thread(try_folder, self._root)

    async def drop_cube(self, cube_uid: str) -> None:
        """Erases all blobs of a cube. Durable when it returns."""
        folder = self._folder(cube_uid)
        await self._run(lambda: self._drop(folder))

    # Names become paths only here.

    def _folder(self, cube_uid: str) -> Path:
        if not _UID.fullmatch(cube_uid):
            raise ValueError("the cube's uid is not a lower-case UUID")
        return self._root / cube_uid

    def _path(self, cube_uid: str, digest: str) -> Path:
        return self._root.parent / blob_path(cube_uid, digest)

    def _part(self, cube_uid: str, digest: str) -> Path:
        path = self._path(cube_uid, digest)
        return path.with_name(f"{path.name}.part")

    async def _run(self, work: Callable[[], T]) -> T:
        return await run_in(self._pool, work)

    def _exclusive(self, part: Path) -> asyncio.Lock:
        """Returns the lock that holds off other writers of one blob."""
        return self._locks.setdefault(part, asyncio.Lock())

    # From here on: in a thread.

    def _prepare(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _expired(self) -> list[Path]:
        return [part for part in self._root.glob("*/??/*.part") if self._is_expired(part)]

    @staticmethod
    def _is_expired(part: Path) -> bool:
        try:
            return part.lstat().st_mtime < time.time() - UPLOAD_LIFETIME_S
        except FileNotFoundError:
            return False

    def _discard_expired(self, part: Path) -> None:
        # It may have gone on since it was found.
        if self._is_expired(part):
            self._discard(part)

    def _reserve(self, part: Path, more: int) -> None:
        """Counts bytes that an upload is about to take; the cube's files are added up once.

        Raises:
            MipError: QUOTA_EXCEEDED.
        """
        folder = part.parent.parent
        with self._hashes_lock:
            known = self._unfinished.get(folder)
        if known is None:
            known = sum(_regular_size(other) or 0 for other in folder.glob("??/*.part"))
        with self._hashes_lock:
            total = self._unfinished.get(folder, known) + more
            if total > self._max_unfinished_bytes > 0:
                raise MipError(
                    "QUOTA_EXCEEDED",
                    f"the cube's unfinished uploads may have {self._max_unfinished_bytes} bytes together; finish them,"
                    " or wait until they expire after a day without a byte",
                    metadata={"quota": "unfinished_upload_bytes", "limit": str(self._max_unfinished_bytes)},
                    retry_after_s=_RETRY_S,
                )
            self._unfinished[folder] = total

    def _release(self, part: Path, less: int) -> None:
        folder = part.parent.parent
        with self._hashes_lock:
            if folder in self._unfinished:
                self._unfinished[folder] = max(self._unfinished[folder] - less, 0)

    def _append(self, part: Path, offset: int, data: bytes) -> None:
        with _full_disk_is_an_answer():
            _make_folders(self._root, part.parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(part, flags, 0o600)
            try:
                self._append_to(descriptor, part, offset, data)
            finally:
                os.close(descriptor)

    def _append_to(self, descriptor: int, part: Path, offset: int, data: bytes) -> None:
        stored = _checked_size(descriptor, part)
        if offset != stored:
            raise MipError(
                "INVALID_STREAM",
                f"The upload goes on at {stored}, not at {offset}",
                metadata={"offset": str(stored)},
            )
        if stored + len(data) > self._max_blob_bytes:
            raise MipError("FIELD_TOO_LARGE", f"A blob may have {self._max_blob_bytes} bytes")
        self._reserve(part, len(data))
        running = self._running_hash(descriptor, part, stored)
        self._forget_hash(part)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], offset + written)
        except OSError:
            # What was written in part is taken back, so that the upload's size stays the last acknowledged one.
            self._release(part, len(data))
            os.ftruncate(descriptor, stored)
            raise
        running.update(data)
        self._keep_hash(part, stored + len(data), running)

    def _running_hash(self, descriptor: int, part: Path, stored: int) -> Any:
        """Returns SHA-256 over what is stored: the kept one, or, after a restart, computed from the file."""
        kept = self._hashes.get(part)
        if kept is not None and kept[0] == stored:
            return kept[1]
        running = hashlib.sha256()
        for piece in _pieces(descriptor):
            running.update(piece)
        return running

    def _keep_hash(self, part: Path, size: int, running: Any) -> None:
        with self._hashes_lock:
            while len(self._hashes) >= MAX_HASHES:
                del self._hashes[next(iter(self._hashes))]
            self._hashes[part] = (size, running)

    def _forget_hash(self, part: Path) -> None:
        with self._hashes_lock:
            self._hashes.pop(part, None)

    def _finish(self, part: Path, path: Path, size: int) -> None:
        with _full_disk_is_an_answer():
            if _regular_size(path) == size:
                # Whoever made it visible may have ended before the folders were synced.
                self._sync_folders(path)
                self._discard(part)
                return
            if not size:
                self._append(part, _regular_size(part) or 0, b"")
            self._verify(part, path.name, size)
            os.rename(part, path)
            self._release(part, size)
            self._forget_hash(part)
            try:
                self._sync_folders(path)
            except OSError:
                # As for the file: whether the name is durable can no longer be told.
                path.unlink(missing_ok=True)
                raise

    def _sync_folders(self, path: Path) -> None:
        # The folders may be those of an upload that never finished: all of them are made durable.
        for folder in (path.parent, path.parent.parent, self._root):
            fsync_folder(folder)

    def _verify(self, part: Path, digest: str, size: int) -> None:
        """Checks and fsyncs an upload."""
        opened = _open_regular(part)
        if not opened:
            raise MipError("UPLOAD_INCOMPLETE", "Nothing of the blob was uploaded", metadata={"offset": "0"})
        descriptor = opened[0]
        try:
            stored = _checked_size(descriptor, part)
            if stored < size:
                raise MipError(
                    "UPLOAD_INCOMPLETE", f"{stored} of {size} bytes are there", metadata={"offset": str(stored)}
                )
            running = self._running_hash(descriptor, part, stored)
            if stored != size or running.hexdigest() != digest:
                self._discard(part)
                raise MipError("DIGEST_MISMATCH", "The uploaded bytes do not have the announced digest and size")
            try:
                _fsync_file(descriptor)
            except OSError:
                # What a failed fsync lost, a second one does not write and reports as written: all comes anew.
                self._discard(part)
                raise
        finally:
            os.close(descriptor)

    def _discard(self, part: Path) -> None:
        self._forget_hash(part)
        self._release(part, _regular_size(part) or 0)
        part.unlink(missing_ok=True)

    def _delete(self, part: Path, path: Path) -> None:
        self._discard(part)
        path.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            fsync_folder(path.parent)

    def _drop(self, folder: Path) -> None:
        with self._hashes_lock:
            for part in [part for part in self._hashes if part.is_relative_to(folder)]:
                del self._hashes[part]
            self._unfinished.pop(folder, None)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        fsync_folder(self._root)


def _regular_size(path: Path) -> int | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _open_regular(path: Path) -> list[int]:
    """Returns a descriptor of a regular file to read; none when there is no such file."""
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno == errno.ELOOP:
            return []
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return [descriptor]
    os.close(descriptor)
    return []


@contextlib.contextmanager
def _full_disk_is_an_answer() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise MipError("STORAGE_FULL", "The disk of the blob store is full; the upload can go on") from error
        raise


def _checked_size(descriptor: int, path: Path) -> int:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file of its own")
    return status.st_size


def _pieces(descriptor: int) -> Iterator[bytes]:
    position = 0
    while piece := os.pread(descriptor, PIECE_BYTES, position):
        yield piece
        position += len(piece)


def _piece_reader(descriptor: int, wanted: int, position: int, whole: Any) -> Callable[[], bytes]:
    def read() -> bytes:
        piece = os.pread(descriptor, wanted, position)
        if whole is not None:
            whole.update(piece)
        return piece

    return read


def _make_folders(root: Path, folder: Path) -> None:
    for level in (folder.parent, folder):
        level.mkdir(mode=0o700, exist_ok=True)
        if level.is_symlink():
            raise OSError(errno.ELOOP, f"{level.relative_to(root)} is a symbolic link")


def _fsync_file(descriptor: int) -> None:
    os.fsync(descriptor)
