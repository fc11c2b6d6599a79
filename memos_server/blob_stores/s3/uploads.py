"""Unfinished uploads as objects, so that any server goes on with what another began.

An upload is a chain of pieces: the first begins at 0, each further one where the one before ends, and a piece's name is
where it begins. A piece of OPEN_BYTES and more is closed and never changes; only the last may be smaller. Appending
writes exactly one object, on a condition: behind a closed piece one of a new name, which must not exist; to an open one
that piece with the new bytes behind, which must be as it was read. So of several that append at one place one writes
and the others are refused, whichever servers they are, and small appends do not make many objects.

OPEN_BYTES is the same for all servers of a bucket.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from memos_server.blob_stores.s3.bucket import AbsentError, Bucket, ConditionError, Stored
from memos_server.blob_stores.s3.keys import Keys, piece_key
from memos_server.errors import MipError

OPEN_BYTES: Final = 256 * 1024
"""A piece that is smaller takes more bytes."""

MAX_KNOWN: Final = 128
"""The most uploads whose end is kept in memory, each with at most OPEN_BYTES; of another one the store is asked."""

_KNOWN_S: Final = 60.0
"""How long an end is believed, seconds. An upload that another server has finished or dropped meanwhile takes pieces
that no chain holds; whoever finishes it then is told where to go on."""

_COUNTED_S: Final = 30.0
"""How old the sum of a cube's unfinished uploads may be, seconds: so much later this server hears of other servers'."""
_MAX_COUNTED: Final = 4096
_TRIES: Final = 3
_FULL_RETRY_S: Final = 60.0
"""When to try again where unfinished uploads take all room: it may come as soon as one of them is finished."""


@dataclass(frozen=True, slots=True)
class _End:
    """Where an upload ends.

    Attributes:
        size: How many bytes it has.
        start: Where its open piece begins; `size` without one.
        etag: The open piece's; None without one.
        data: The open piece's bytes.
        seen: When it was so, by the monotonic clock.
    """

    size: int
    start: int
    etag: str | None = None
    data: bytes = b""
    seen: float = field(default_factory=time.monotonic)


def chain(pieces: Sequence[Stored]) -> list[Stored]:
    """Returns the pieces that follow each other from 0 on. What else is there was left by an upload that was dropped.

    Args:
        pieces: The pieces in order of their names.
    """
    found: list[Stored] = []
    end = 0
    for piece in pieces:
        if int(piece.key.rpartition("/")[2]) == end and piece.size:
            found.append(piece)
            end += piece.size
    return found


def size_of(pieces: Sequence[Stored]) -> int:
    """Returns how many bytes pieces have together."""
    return sum(piece.size for piece in pieces)


class Uploads:
    """The unfinished uploads of all cubes. Everything here blocks; callers serialise what they do with one upload."""

    def __init__(self, bucket: Bucket, keys: Keys, *, max_blob_bytes: int, max_unfinished_bytes: int) -> None:
        """Prepares.

        Args:
            bucket: Where they are.
            keys: How they are called.
            max_blob_bytes: The most bytes of a blob.
            max_unfinished_bytes: The most bytes of a cube's unfinished uploads together; 0 means no limit.
        """
        self._bucket = bucket
        self._keys = keys
        self._max_blob_bytes = max_blob_bytes
        self._max_unfinished_bytes = max_unfinished_bytes
        self._lock = threading.Lock()
        self._known: dict[str, _End] = {}
        self._counted: dict[str, tuple[int, float]] = {}

    def pieces(self, upload: str) -> list[Stored]:
        """Returns the pieces of an upload, in order."""
        return chain(list(self._bucket.listed(upload)))

    def append(self, cube_uid: str, upload: str, offset: int, data: bytes) -> None:
        """Appends to an upload; errors as in BlobStore.append."""
        end = self._taken(upload)
        if end is None or end.size != offset or not data or time.monotonic() - end.seen > _KNOWN_S:
            end = self._look(upload)
        for _ in range(_TRIES):
            self._check(end, offset, data)
            if not data:
                self._keep(upload, end)
                return
            self._reserve(cube_uid, len(data))
            try:
                etag = self._write(upload, end, data)
            except ConditionError:
                self._release(cube_uid, len(data))
                end = self._look(upload)
                continue
            except BaseException:
                self._release(cube_uid, len(data))
                raise
            size, body = end.size + len(data), end.data + data
            opened = len(body) < OPEN_BYTES
            self._keep(upload, _End(size, end.start, etag, body) if opened else _End(size, size))
            return
        raise _elsewhere(end.size, offset)

    def _check(self, end: _End, offset: int, data: bytes) -> None:
        if end.size != offset:
            raise _elsewhere(end.size, offset)
        if end.size + len(data) > self._max_blob_bytes:
            raise MipError("FIELD_TOO_LARGE", f"A blob may have {self._max_blob_bytes} bytes")

    def _write(self, upload: str, end: _End, data: bytes) -> str:
        return self._bucket.put_if(piece_key(upload, end.start), end.data + data, end.etag)

    def _look(self, upload: str) -> _End:
        """Asks the store where an upload ends.

        Raises:
            MipError: BACKEND_UNAVAILABLE, also when it changes all the time.
        """
        for _ in range(_TRIES):
            pieces = self.pieces(upload)
            size = size_of(pieces)
            if not pieces or pieces[-1].size >= OPEN_BYTES:
                return _End(size, size)
            last = pieces[-1]
            try:
                data, whole = self._bucket.read(last.key, 0, OPEN_BYTES)
            except AbsentError:
                continue
            if whole == last.size:
                # Were it another piece of the same size, its etag would not be this one, and the write be refused.
                return _End(size, size - last.size, last.etag, data)
        raise MipError("BACKEND_UNAVAILABLE", "the upload is being changed; try again", retry_after_s=1.0)

    def drop(self, cube_uid: str, upload: str) -> None:
        """Deletes the pieces of an upload, also those that no chain holds."""
        self.forget(upload)
        found = list(self._bucket.listed(upload))
        self._bucket.delete(piece.key for piece in found)
        self._release(cube_uid, size_of(found))

    def forget(self, prefix: str) -> None:
        """Forgets what is known of the uploads whose names begin so."""
        with self._lock:
            for upload in [upload for upload in self._known if upload.startswith(prefix)]:
                del self._known[upload]

    def recount(self, cube_uid: str) -> None:
        """Forgets how much a cube's uploads take."""
        with self._lock:
            self._counted.pop(cube_uid, None)

    def _taken(self, upload: str) -> _End | None:
        # Taken out: after an append that failed, the store has to be asked.
        with self._lock:
            return self._known.pop(upload, None)

    def _keep(self, upload: str, end: _End) -> None:
        with self._lock:
            while len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[upload] = end

    def _reserve(self, cube_uid: str, more: int) -> None:
        """Counts bytes that an upload is about to take.

        Raises:
            MipError: QUOTA_EXCEEDED.
        """
        if not self._max_unfinished_bytes:
            return
        with self._lock:
            known = self._counted.get(cube_uid)
        if known is None or time.monotonic() - known[1] > _COUNTED_S:
            known = size_of(list(self._bucket.listed(self._keys.uploads_of(cube_uid)))), time.monotonic()
            with self._lock:
                while len(self._counted) >= _MAX_COUNTED:
                    del self._counted[next(iter(self._counted))]
                self._counted[cube_uid] = known
        with self._lock:
            total, since = self._counted.get(cube_uid, known)
            if total + more > self._max_unfinished_bytes:
                raise MipError(
                    "QUOTA_EXCEEDED",
                    f"the cube's unfinished uploads may have {self._max_unfinished_bytes} bytes together; finish them,"
                    " or wait until they expire after a day without a byte",
                    metadata={"quota": "unfinished_upload_bytes", "limit": str(self._max_unfinished_bytes)},
                    retry_after_s=_FULL_RETRY_S,
                )
            self._counted[cube_uid] = total + more, since

    def _release(self, cube_uid: str, less: int) -> None:
        with self._lock:
            if cube_uid in self._counted:
                total, since = self._counted[cube_uid]
                self._counted[cube_uid] = max(total - less, 0), since


def _elsewhere(end: int, offset: int) -> MipError:
    return MipError("INVALID_STREAM", f"The upload goes on at {end}, not at {offset}", metadata={"offset": str(end)})
