"""The port of blob stores (`memos.blob_stores`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class BlobStore(Protocol):
    """Stores bytes under (cube uid, digest). Which cube holds which blob is the record's knowledge, not the store's;
    the store keeps each cube's blobs apart, so that erasing one cube's never touches another's."""

    async def open(self) -> None:
        """Prepares the store and drops uploads older than a day."""

    async def expire(self) -> None:
        """Drops uploads that nobody continued for a day; called now and then while the server runs."""

    async def close(self) -> None:
        """Lets go of open files."""

    async def size(self, cube_uid: str, digest: str) -> int | None:
        """Returns the blob's size, or None when it is absent."""

    async def upload_size(self, cube_uid: str, digest: str) -> int:
        """Returns how many bytes of an unfinished upload are stored; 0 when there is none."""

    async def append(self, cube_uid: str, digest: str, offset: int, data: bytes) -> None:
        """Appends to an upload.

        Raises:
            MipError: INVALID_STREAM when `offset` is not the stored size; STORAGE_FULL when the disk is;
                QUOTA_EXCEEDED with RetryInfo and the metadata `quota` (`unfinished_upload_bytes`) and `limit` when the
                cube's unfinished uploads would be larger together than `max_unfinished_upload_bytes`.
        """

    def max_unfinished_upload_bytes(self) -> int:
        """Returns the most bytes of a cube's unfinished uploads together, as GetCapabilities declares it; 0 for no
        limit."""

    async def finish(self, cube_uid: str, digest: str, size: int) -> None:
        """Verifies size and SHA-256, fsyncs file and folder, and makes the blob visible.

        Raises:
            MipError: DIGEST_MISMATCH (the upload is dropped); UPLOAD_INCOMPLETE when bytes are missing.
        """

    def read(self, cube_uid: str, digest: str, offset: int = 0, limit: int = 0) -> AsyncIterator[bytes]:
        """Yields the bytes in pieces of at most 1 MiB; `limit` 0 means to the end.

        Raises:
            MipError: BLOB_NOT_FOUND; DATA_CORRUPT when a whole read does not have the digest.
        """

    async def delete(self, cube_uid: str, digest: str) -> None:
        """Erases the blob or an upload of it; absent is fine. Durable when it returns."""

    async def drop_cube(self, cube_uid: str) -> None:
        """Erases all blobs of a cube."""

    async def free(self) -> int | None:
        """Returns how many more bytes the store has room for; None where it cannot tell."""

    async def probe(self) -> None:
        """Tries whether blobs can be read and written, in a moment and beside what the store is busy with.

        Raises:
            MipError: BACKEND_UNAVAILABLE or STORAGE_FULL; the message says what is wrong and what to do.
        """
