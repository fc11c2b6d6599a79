"""Reading blobs to send and writing blobs that come, by frames of 1 MiB."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from memos_sdk import _stubs
from memos_sdk._gen import wire
from memos_sdk.errors import DataLoss, UsageError

BLOB_FRAME_BYTES = 1024 * 1024
Progress = Callable[[int, int], object]


class BlobSource:
    """Bytes to upload, with their digest and size. A file is read twice: to hash it and to send it."""

    def __init__(self, source: bytes | str | Path) -> None:
        """Hashes the source.

        Raises:
            UsageError: The file cannot be read.
        """
        self._source = source
        try:
            with self.open() as file:
                hasher = hashlib.sha256()
                while data := file.read(BLOB_FRAME_BYTES):
                    hasher.update(data)
                self.digest = f"sha256:{hasher.hexdigest()}"
                self.size = file.tell()
        except OSError as error:
            raise UsageError(
                f"cannot read {source!r}: {error.strerror}", reason="FILE_UNREADABLE", remedy="Check the path."
            ) from error

    def open(self) -> BinaryIO:
        """Opens the bytes for reading."""
        return io.BytesIO(self._source) if isinstance(self._source, bytes) else open(self._source, "rb")


def upload_frames(cube: str, blob: BlobSource, offset: int, progress: Progress | None) -> Iterator[bytes]:
    """Yields the encoded frames of an upload: a header, the data from `offset` on, the finish."""
    header = wire.BlobHeader(parent=cube, digest=blob.digest, size=blob.size, offset=offset)
    yield wire.WriteBlobRequest(header=header).SerializeToString()
    with blob.open() as file:
        file.seek(offset)
        while data := file.read(BLOB_FRAME_BYTES):
            yield wire.WriteBlobRequest(data=wire.BlobData(offset=offset, data=data)).SerializeToString()
            offset += len(data)
            if progress is not None:
                progress(offset, blob.size)
    yield wire.WriteBlobRequest(finish=True).SerializeToString()


class BlobReceiver:
    """Takes the frames of a download, and knows where to go on after a break.

    Attributes:
        offset: The bytes that are there.
        corrupt: True once the bytes turned out not to have the digest.
    """

    def __init__(self, cube: str, digest: str, file: BinaryIO, progress: Progress | None) -> None:
        """Writes to `file` from its beginning; `resume` first keeps what it already holds."""
        self._cube = cube
        self._digest = digest
        self._file = file
        self._progress = progress
        self._hash = hashlib.sha256()
        self.offset = 0
        self._size = 0
        self.corrupt = False

    def resume(self) -> None:
        """Reads what the file holds from an earlier try."""
        self._file.seek(0)
        while data := self._file.read(BLOB_FRAME_BYTES):
            self._hash.update(data)
            self.offset += len(data)

    def request(self) -> wire.ReadBlobRequest:
        """Returns the request for what is still missing."""
        return _stubs.READ_BLOB(parent=self._cube, digest=self._digest, offset=self.offset)

    def take(self, frame: wire.ReadBlobResponse) -> None:
        """Writes a frame.

        Raises:
            DataLoss: The frames do not follow one another.
        """
        if frame.HasField("header"):
            self._size = frame.header.size
        if frame.HasField("data"):
            if frame.data.offset != self.offset:
                raise self._corrupt(f"bytes {self.offset} to {frame.data.offset} are missing")
            self._file.write(frame.data.data)
            self._hash.update(frame.data.data)
            self.offset += len(frame.data.data)
            if self._progress is not None:
                self._progress(self.offset, max(self._size, self.offset))

    def finish(self) -> None:
        """Compares the digest.

        Raises:
            DataLoss: The bytes do not have it.
        """
        self._file.flush()
        if f"sha256:{self._hash.hexdigest()}" != self._digest:
            raise self._corrupt("the bytes do not have the digest")

    def _corrupt(self, message: str) -> DataLoss:
        self.corrupt = True
        return DataLoss(f"{self._digest}: {message}", reason="DIGEST_MISMATCH", remedy="Download the blob again.")
