"""AsyncBlobs: the bytes that a cube's memories name."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from memos_sdk import _stubs
from memos_sdk._async.caller import LONG_TIMEOUT, AsyncCaller
from memos_sdk._async.transport import in_thread, sleep, threaded
from memos_sdk._core.blob_io import BlobReceiver, BlobSource, upload_frames
from memos_sdk._core.convert import generated
from memos_sdk._gen import wire
from memos_sdk.errors import MipError, NotFound
from memos_sdk.models import BlobStat

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


class AsyncBlobs:
    """Uploads and downloads the blobs of one cube. Interrupted transfers go on where they broke off."""

    def __init__(self, caller: AsyncCaller, cube: str) -> None:
        """Is made by the cube."""
        self._caller = caller
        self._cube = cube

    async def upload(
        self,
        source: bytes | str | Path,
        *,
        media_type: str = "",
        title: str = "",
        progress: Callable[[int, int], object] | None = None,
        timeout: float | None = None,
    ) -> mip.BlobRef:
        """Uploads bytes or a file, unless the cube holds them already.

        Args:
            source: The bytes, or the path of a file.
            media_type: The media type, for the reference.
            title: The role of the blob within its memory, for the reference.
            progress: Called with the bytes sent and the bytes in all.
            timeout: Seconds of each try; None means ten minutes.

        Returns:
            The reference to put into a memory.
        """
        blob = await in_thread(BlobSource, source)
        reference = wire.BlobRef(digest=blob.digest, size=blob.size, media_type=media_type, title=title)
        attempts = self._caller.attempts(_stubs.QUERY_WRITE, math.inf)
        reached = 0
        while blob.digest in await self.missing([blob.digest]):
            try:
                offset = await self._arrived(blob.digest)
                if offset > reached:
                    # What moves on has all its tries before it again.
                    attempts, reached = self._caller.attempts(_stubs.QUERY_WRITE, math.inf), offset
                attempts.next_timeout()
                frames = threaded(upload_frames(self._cube, blob, offset, progress))
                await self._caller.upload(_stubs.WRITE_BLOB, frames, timeout or LONG_TIMEOUT)
                break
            except MipError as error:
                delay = attempts.delay_after(error)
                if delay is None:
                    raise
                await sleep(delay)
        if progress is not None:
            progress(blob.size, blob.size)
        return generated(reference)

    async def read(self, digest: str, *, timeout: float | None = None) -> bytes:
        """Returns the bytes of a blob, checked against the digest."""
        buffer = io.BytesIO()
        await self._receive(BlobReceiver(self._cube, digest, buffer, None), timeout)
        return buffer.getvalue()

    async def download(
        self,
        digest: str,
        path: str | Path,
        *,
        progress: Callable[[int, int], object] | None = None,
        timeout: float | None = None,
    ) -> Path:
        """Writes a blob to a file, checked against the digest. A partial file (`.part`) of an earlier try is used.

        Args:
            digest: The blob, `sha256:…`.
            path: The file.
            progress: Called with the bytes received and the bytes in all.
            timeout: Seconds of each try; None means ten minutes.

        Raises:
            DataLoss: The bytes do not have the digest; nothing is left behind.
        """
        path = Path(path)
        part = path.with_name(path.name + ".part")
        with open(part, "a+b") as file:  # noqa: ASYNC230 - frames are written as they come, a MiB at most
            receiver = BlobReceiver(self._cube, digest, file, progress)
            await in_thread(receiver.resume)
            try:
                await self._receive(receiver, timeout)
            except MipError:
                if receiver.corrupt:
                    part.unlink(missing_ok=True)
                raise
        part.replace(path)
        return path

    async def stat(self, digest: str, *, timeout: float | None = None) -> BlobStat:
        """Tells whether the cube holds a blob, how large it is, and how much of an unfinished upload has arrived."""
        request = _stubs.READ_BLOB(parent=self._cube, digest=digest, limit=1)
        try:
            async for frame in self._caller.stream(_stubs.READ_BLOB, request, timeout or self._caller.timeout):
                if frame.HasField("header"):
                    return BlobStat(digest, True, frame.header.size, frame.header.size)
        except NotFound:
            pass
        return BlobStat(digest, False, None, await self._arrived(digest))

    async def missing(self, digests: Iterable[str], *, timeout: float | None = None) -> list[str]:
        """Returns those digests that the cube does not hold, in order."""
        request = _stubs.FIND_MISSING_BLOBS(parent=self._cube, digests=list(digests))
        return list((await self._caller.call(_stubs.FIND_MISSING_BLOBS, request, timeout)).digests)

    async def _arrived(self, digest: str) -> int:
        """Returns how much of an interrupted upload the server has."""
        request = _stubs.QUERY_WRITE(parent=self._cube, digest=digest)
        try:
            return (await self._caller.call(_stubs.QUERY_WRITE, request)).committed_size
        except NotFound:
            return 0

    async def _receive(self, receiver: BlobReceiver, timeout: float | None) -> None:
        attempts = self._caller.attempts(_stubs.READ_BLOB, math.inf)
        reached = receiver.offset
        while True:
            if receiver.offset > reached:
                # What moves on has all its tries before it again.
                attempts, reached = self._caller.attempts(_stubs.READ_BLOB, math.inf), receiver.offset
            attempts.next_timeout()
            try:
                async for frame in self._caller.stream(_stubs.READ_BLOB, receiver.request(), timeout or LONG_TIMEOUT):
                    receiver.take(frame)
                receiver.finish()
                return
            except MipError as error:
                delay = attempts.delay_after(error)
                if delay is None:
                    raise
                await sleep(delay)
