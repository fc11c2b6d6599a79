"""The BlobStore port over an S3-compatible store. It holds no state of its own: several servers share one bucket."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from memos_server.blob_stores.s3 import failures
from memos_server.blob_stores.s3.bucket import AbsentError, Account, Bucket, ConditionError
from memos_server.blob_stores.s3.composing import compose
from memos_server.blob_stores.s3.keys import Keys
from memos_server.blob_stores.s3.uploads import Uploads, size_of
from memos_server.blob_stores.threads import run_in
from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import read_secret
from memos_server.configs.tls import is_loopback
from memos_server.errors import MipError

_LOG = logging.getLogger(__name__)

PIECE_BYTES: Final = 2**20
"""The size of what `read` yields, in bytes."""

UPLOAD_LIFETIME_S: Final = 86_400
"""How long an upload that nobody continues is kept, in seconds."""

_WINDOW_BYTES: Final = 4 * 2**20
"""How much one request reads. A slow reader holds this much memory twice, and no connection."""
_COMPOSING: Final = 2
"""How many uploads become blobs at once; each takes some 50 MiB of memory while it does."""
_PROBE_S: Final = 5.0
"""How long the store may be silent to a probe, seconds."""

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)

T = TypeVar("T")


class S3BlobStore:
    """The BlobStore port over one bucket. Blocking work runs in the store's own threads."""

    def __init__(
        self,
        data_dir: str,
        *,
        bucket: str,
        endpoint: str = "",
        prefix: str = "",
        region: str = "us-east-1",
        access_key: str = "",
        secret_key: str = "",
        secret_key_file: str = "",
        ca_file: str = "",
        max_blob_bytes: int = 16 * 2**30,
        threads: int = 16,
        max_unfinished_bytes: int = 64 * 2**30,
    ) -> None:
        """Makes the store.

        Args:
            data_dir: The data folder, in which this store keeps nothing.
            bucket: The bucket; it exists, and keeps no versions.
            endpoint: `https://HOST[:PORT]`; empty for Amazon S3 itself.
            prefix: What the names of all objects begin with, as a folder.
            region: The region.
            access_key: The access key; empty for what the machine gives its programs (environment, instance role).
            secret_key: Its secret; this or `secret_key_file`.
            secret_key_file: A file that holds it, readable by its owner only.
            ca_file: The authorities that may have signed the store's certificate, PEM; empty for the system's.
            max_blob_bytes: The most bytes of a blob.
            threads: How many requests may run at once.
            max_unfinished_bytes: The most bytes of a cube's unfinished uploads together; 0 means no limit.

        Raises:
            ValueError: A setting is none.
            SetupError: The secret's file cannot be used.
        """
        del data_dir
        if not _BUCKET.fullmatch(bucket):
            raise ValueError("bucket must have 3 to 63 lower-case letters, digits, dots and hyphens")
        if max_unfinished_bytes < 0:
            raise ValueError("max_unfinished_bytes must not be negative")
        if not 1 <= threads <= 256:
            raise ValueError("threads must be 1 to 256")
        if ca_file and not os.access(ca_file, os.R_OK):
            raise ValueError("ca_file cannot be read")
        secret = _secret(access_key, secret_key, secret_key_file)
        self._endpoint = _checked_endpoint(endpoint)
        self._account = Account(self._endpoint, region, access_key, secret, ca_file)
        self._name = bucket
        self._keys = Keys(prefix)
        self._threads = threads
        self._max_blob_bytes = int(max_blob_bytes)
        self._max_unfinished_bytes = int(max_unfinished_bytes)
        self._pool: ThreadPoolExecutor | None = None
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._composing = asyncio.Semaphore(_COMPOSING)

    async def open(self) -> None:
        """Tries whether the bucket can do what is needed, and drops uploads older than a day.

        Raises:
            SetupError: It does not exist, refuses the credentials, keeps versions, or knows no conditional writes.
            MipError: BACKEND_UNAVAILABLE when it cannot be reached now.
        """
        # Reading the library's description of S3 takes a tenth of a second.
        self._bucket, self._prober = await asyncio.to_thread(self._buckets)
        self._uploads = Uploads(
            self._bucket,
            self._keys,
            max_blob_bytes=self._max_blob_bytes,
            max_unfinished_bytes=self._max_unfinished_bytes,
        )
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="s3")
        try:
            await self._run(self._examine)
            await self.expire()
        except BaseException:
            await self.close()
            raise

    async def expire(self) -> None:
        """Drops uploads that nobody continued for a day, also those of servers that are no more."""
        for cube_uid, digest in await self._run(self._expired):
            async with self._exclusive(self._keys.upload(cube_uid, digest)):
                await self._run(partial(self._drop_expired, cube_uid, digest))

    async def close(self) -> None:
        """Waits for work under way, and lets go of threads and connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.get_running_loop().run_in_executor(None, pool.shutdown)
            self._bucket.close()
            self._prober.close()

    async def size(self, cube_uid: str, digest: str) -> int | None:
        """Returns the blob's size, or None when it is absent."""
        key = self._keys.blob(cube_uid, digest)
        return await self._run(lambda: self._bucket.size(key))

    async def upload_size(self, cube_uid: str, digest: str) -> int:
        """Returns how many bytes of an unfinished upload are stored; 0 when there is none."""
        upload = self._keys.upload(cube_uid, digest)
        return await self._run(lambda: size_of(self._uploads.pieces(upload)))

    async def append(self, cube_uid: str, digest: str, offset: int, data: bytes) -> None:
        """Appends to an upload.

        Raises:
            MipError: INVALID_STREAM when `offset` is not the stored size; FIELD_TOO_LARGE when the blob would be
                larger than a blob may be; STORAGE_FULL when the store is; QUOTA_EXCEEDED; BACKEND_UNAVAILABLE.
        """
        upload = self._keys.upload(cube_uid, digest)
        async with self._exclusive(upload):
            await self._run(lambda: self._uploads.append(cube_uid, upload, offset, data))

    def max_unfinished_upload_bytes(self) -> int:
        """See BlobStore."""
        return self._max_unfinished_bytes

    async def finish(self, cube_uid: str, digest: str, size: int) -> None:
        """Verifies size and SHA-256 of what is stored and makes the blob visible; once it is, does nothing.

        Raises:
            MipError: DIGEST_MISMATCH (the upload is dropped); UPLOAD_INCOMPLETE when bytes are missing;
                STORAGE_FULL; BACKEND_UNAVAILABLE.
        """
        upload, key = self._keys.upload(cube_uid, digest), self._keys.blob(cube_uid, digest)
        async with self._exclusive(upload):
            if await self._run(lambda: self._bucket.size(key)) != size:
                await self._compose(cube_uid, upload, key, size)
            await self._run(lambda: self._uploads.drop(cube_uid, upload))

    async def _compose(self, cube_uid: str, upload: str, key: str, size: int) -> None:
        pieces = await self._run(lambda: self._uploads.pieces(upload))
        stored = size_of(pieces)
        if stored < size:
            message = f"{stored} of {size} bytes are there" if stored else "Nothing of the blob was uploaded"
            raise MipError("UPLOAD_INCOMPLETE", message, metadata={"offset": str(stored)})
        fits = stored == size
        if fits:
            try:
                async with self._composing:
                    fits = await compose(self._run, self._bucket, key, pieces, size)
            except AbsentError:
                # Another server finished it, which the look below shows, or dropped it.
                fits = True
        if not fits:
            await self._run(lambda: self._uploads.drop(cube_uid, upload))
            raise MipError("DIGEST_MISMATCH", "The uploaded bytes do not have the announced digest and size")
        if await self._run(lambda: self._bucket.size(key)) != size:
            raise MipError(
                "UPLOAD_INCOMPLETE", "The upload was dropped while it was finished", metadata={"offset": "0"}
            )

    async def read(self, cube_uid: str, digest: str, offset: int = 0, limit: int = 0) -> AsyncIterator[bytes]:
        """Yields the bytes in pieces of at most 1 MiB; `limit` 0 means to the end.

        Raises:
            MipError: BLOB_NOT_FOUND, also when it is deleted while it is read; DATA_CORRUPT when a whole read does not
                have the digest; BACKEND_UNAVAILABLE.
        """
        key = self._keys.blob(cube_uid, digest)
        whole: Any = hashlib.sha256() if offset == 0 and limit == 0 else None
        position = max(offset, 0)
        end: int | None = position + limit if limit else None

        def window(start: int) -> tuple[bytes, int]:
            length = _WINDOW_BYTES if end is None else min(_WINDOW_BYTES, end - start)
            return self._bucket.read(key, start, length)

        following: asyncio.Future[tuple[bytes, int]] | None = None
        try:
            while end is None or position < end:
                try:
                    data, size = await (following or self._run(partial(window, position)))
                except AbsentError:
                    raise MipError("BLOB_NOT_FOUND", "The blob does not exist", metadata={"digest": digest}) from None
                following = None
                end = size if end is None else min(end, size)
                if not data:
                    break
                position += len(data)
                if position < end:
                    following = asyncio.ensure_future(self._run(partial(window, position)))
                for start in range(0, len(data), PIECE_BYTES):
                    piece = data[start : start + PIECE_BYTES]
                    if whole is not None:
                        await self._run(partial(whole.update, piece))
                    yield piece
        finally:
            if following is not None:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError, MipError, AbsentError):
                    await following
        if whole is not None and f"sha256:{whole.hexdigest()}" != digest:
            raise MipError("DATA_CORRUPT", "The stored blob does not have its digest", metadata={"digest": digest})

    async def delete(self, cube_uid: str, digest: str) -> None:
        """Erases the blob or an upload of it, with older versions; absent is fine. Durable when it returns."""
        upload, key = self._keys.upload(cube_uid, digest), self._keys.blob(cube_uid, digest)

        def erase() -> None:
            self._uploads.forget(upload)
            self._uploads.recount(cube_uid)
            self._bucket.erase(upload)
            self._bucket.erase(key)

        async with self._exclusive(upload):
            await self._run(erase)

    async def drop_cube(self, cube_uid: str) -> None:
        """Erases all blobs and uploads of a cube. Durable when it returns."""
        uploads, blobs = self._keys.uploads_of(cube_uid), self._keys.blobs_of(cube_uid)

        def drop() -> None:
            self._uploads.forget(uploads)
            self._uploads.recount(cube_uid)
            # Some stores tell what is being written in parts only to who names the object: it has an upload still.
            for digest in {digest for _, digest, _ in self._pieces(uploads)}:
                self._bucket.erase(self._keys.blob(cube_uid, digest))
            self._bucket.erase(uploads)
            self._bucket.erase(blobs)

        await self._run(drop)

    async def free(self) -> int | None:
        """See BlobStore: a bucket does not tell."""
        return None

    async def probe(self) -> None:
        """See BlobStore: writes a small object, reads it and deletes it, apart from what the store is busy with.

        Raises:
            MipError: BACKEND_UNAVAILABLE or STORAGE_FULL.
        """
        await asyncio.to_thread(self._try)

    async def _run(self, work: Callable[[], T]) -> T:
        return await run_in(self._pool, work)

    def _exclusive(self, upload: str) -> asyncio.Lock:
        """Returns the lock that holds off other writers of one blob here, which would only be refused by the store."""
        return self._locks.setdefault(upload, asyncio.Lock())

    # From here on: in a thread.

    def _buckets(self) -> tuple[Bucket, Bucket]:
        busy = Bucket(self._account, self._name, connections=self._threads)
        return busy, Bucket(self._account, self._name, connections=2, patience_s=_PROBE_S, attempts=1)

    def _examine(self) -> None:
        """Tries everything that a server needs of the bucket."""
        if self._endpoint.startswith("http:") and not is_loopback(urlsplit(self._endpoint).hostname or ""):
            _LOG.warning("blobs travel to %s without TLS; use https where the network is not trusted", self._endpoint)
        try:
            versioning = self._bucket.versioning()
            if versioning == "Enabled":
                raise SetupError(
                    f"The bucket {self._name} keeps versions: what is purged would stay in it.",
                    "Use a bucket without versioning, or suspend it; backups of blobs are made by `memos backup`.",
                )
            key = f"{self._keys.all_probes}{uuid.uuid4()}"
            try:
                etag = self._bucket.put_if(key, b"1", None)
                if not (self._refuses(key, None) and self._refuses(key, _other(etag))):
                    raise SetupError(
                        f"The store of the bucket {self._name} knows no conditional writes: servers would overwrite"
                        " each other's uploads.",
                        "Use a store that supports If-None-Match and If-Match of PutObject.",
                    )
                self._bucket.read(key, 0, 1)
            finally:
                self._bucket.delete([key])
            next(iter(self._bucket.in_parts(self._keys.all_blobs)), None)
        except MipError as error:
            cause = error.__cause__
            raise failures.explained_at_start(
                cause if isinstance(cause, Exception) else error, self._name, self._endpoint
            ) from cause

    def _refuses(self, key: str, etag: str | None) -> bool:
        try:
            self._bucket.put_if(key, b"2", etag)
        except ConditionError:
            return True
        return False

    def _try(self) -> None:
        key, data = f"{self._keys.all_probes}{uuid.uuid4()}", os.urandom(16)
        self._prober.put(key, data)
        try:
            found, _ = self._prober.read(key, 0, len(data))
        except AbsentError:
            found = b""
        self._prober.delete([key])
        if found != data:
            raise MipError(
                "BACKEND_UNAVAILABLE",
                f"the bucket {self._name} does not give back what was written; look whether its store is sound",
            )

    def _pieces(self, prefix: str) -> list[tuple[str, str, datetime]]:
        """Returns cube uid, digest and time of the pieces whose names begin so."""
        return [
            (named[0], named[1], piece.modified)
            for piece in self._bucket.listed(prefix)
            if (named := self._keys.of_piece(piece.key)) is not None
        ]

    def _expired(self) -> list[tuple[str, str]]:
        """Returns cube uid and digest of abandoned uploads; drops old probes, and old parts of what has no upload."""
        before = self._bucket.now(self._keys.all_probes) - timedelta(seconds=UPLOAD_LIFETIME_S)
        probes = [each.key for each in self._bucket.listed(self._keys.all_probes) if each.modified < before]
        self._bucket.delete(probes)
        for key, upload, begun in list(self._bucket.in_parts(self._keys.all_blobs)):
            if begun < before:
                self._bucket.drop_parts(key, upload)
        newest: dict[tuple[str, str], datetime] = {}
        for cube_uid, digest, modified in self._pieces(self._keys.all_uploads):
            name = cube_uid, digest
            newest[name] = max(newest.get(name, modified), modified)
        return [name for name, modified in newest.items() if modified < before]

    def _drop_expired(self, cube_uid: str, digest: str) -> None:
        upload, key = self._keys.upload(cube_uid, digest), self._keys.blob(cube_uid, digest)
        before = self._bucket.now(self._keys.all_probes) - timedelta(seconds=UPLOAD_LIFETIME_S)
        # It may have gone on since it was found.
        if any(modified >= before for _, _, modified in self._pieces(upload)):
            return
        for of, parts, begun in list(self._bucket.in_parts(key)):
            if begun < before:
                self._bucket.drop_parts(of, parts)
        self._uploads.drop(cube_uid, upload)


def _other(etag: str) -> str:
    """Returns an etag that an object does not have."""
    return '"00000000000000000000000000000000"' if "1" in etag else '"11111111111111111111111111111111"'


def _secret(access_key: str, secret_key: str, secret_key_file: str) -> str:
    if not access_key and not secret_key and not secret_key_file:
        return ""
    if not access_key or bool(secret_key) == bool(secret_key_file):
        raise ValueError("access_key needs exactly one of secret_key and secret_key_file")
    if secret_key:
        return secret_key
    secret = read_secret(Path(secret_key_file)).decode("utf-8", "replace").strip()
    if not secret:
        raise SetupError(f"{secret_key_file} is empty.", "Put the secret key of blobs.config.access_key there.")
    return secret


def _checked_endpoint(endpoint: str) -> str:
    if not endpoint:
        return ""
    parts = urlsplit(endpoint)
    plain = not (parts.username or parts.password or parts.query or parts.fragment or parts.path.strip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        raise ValueError("endpoint must be http(s)://HOST[:PORT]")
    return f"{parts.scheme}://{parts.netloc}"
