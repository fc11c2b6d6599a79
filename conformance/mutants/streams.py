"""Faults in streams: watches, uploads, downloads, bulk additions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from conformance.mutants.faults import after, everywhere, mutant, use_case
from conformance.mutants.servers import Patches
from memos_server.api import standing

_WATCH = ("watch*/*", "revocation/*")


def _watch(patches: Patches, wrapper: Callable[..., AsyncIterator[Any]]) -> None:
    use_case(patches, "WatchCube", wrapper)


@mutant("watch-with-a-gap", *_WATCH)
def _watch_gap(patches: Patches) -> None:
    """A watch leaves out every third commit."""

    async def watch(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> AsyncIterator[Any]:
        seen, left_out = 0, False
        async for frame in original(mos, call, request):
            if frame.WhichOneof("frame") in ("commit", "sealed_header"):
                seen += 1
                left_out = seen % 3 == 0
            if not left_out:
                yield frame

    _watch(patches, watch)


@mutant("watch-out-of-order", *_WATCH)
def _watch_order(patches: Patches) -> None:
    """A watch sends the second of two commits before the first."""

    async def watch(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> AsyncIterator[Any]:
        held: list[Any] = []
        commit: list[Any] = []
        async for frame in original(mos, call, request):
            commit.append(frame)
            if frame.WhichOneof("frame") != "end":
                continue
            if not held and frame.end.revision % 2:
                held, commit = commit, []
                continue
            for item in [*commit, *held]:
                yield item
            held, commit = [], []

    _watch(patches, watch)


@mutant("watch-repeats", *_WATCH)
def _watch_repeats(patches: Patches) -> None:
    """A watch sends each commit twice."""

    async def watch(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> AsyncIterator[Any]:
        commit: list[Any] = []
        async for frame in original(mos, call, request):
            yield frame
            commit.append(frame)
            if frame.WhichOneof("frame") == "end":
                for item in commit:
                    yield item
                commit = []

    _watch(patches, watch)


@mutant("watch-without-ends", *_WATCH)
def _watch_ends(patches: Patches) -> None:
    """A watch does not say where a commit ends."""

    async def watch(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> AsyncIterator[Any]:
        async for frame in original(mos, call, request):
            if frame.WhichOneof("frame") != "end":
                yield frame

    _watch(patches, watch)


@mutant("watch-without-changes", *_WATCH)
def _watch_changes(patches: Patches) -> None:
    """A watch sends commits without their changes."""

    async def watch(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> AsyncIterator[Any]:
        async for frame in original(mos, call, request):
            if frame.WhichOneof("frame") != "changes":
                yield frame

    _watch(patches, watch)


@mutant("watch-from-the-beginning", *_WATCH)
def _watch_beginning(patches: Patches) -> None:
    """A watch from the next commit on begins with the first."""

    async def watch(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> AsyncIterator[Any]:
        request.start_revision = 1
        async for frame in original(mos, call, request):
            yield frame

    _watch(patches, watch)


@mutant("watch-of-the-past-alone", *_WATCH)
def _watch_past(patches: Patches) -> None:
    """A watch does not go on with commits that are made after it began."""

    async def watch(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> AsyncIterator[Any]:
        from memos_server import names

        cube = await mos.read(lambda txn: txn.cube(names.parse_cube(request.name)))
        async for frame in original(mos, call, request):
            if frame.WhichOneof("frame") == "heartbeat":
                yield frame
            elif (request.start_revision or cube.revision + 1) <= cube.revision:
                yield frame
                if frame.WhichOneof("frame") == "end" and frame.end.revision >= cube.revision:
                    await asyncio.sleep(60)

    _watch(patches, watch)


@mutant("watch-without-heartbeats", *_WATCH)
def _watch_heartbeats(patches: Patches) -> None:
    """A watch is silent while nothing happens."""

    async def watch(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> AsyncIterator[Any]:
        async for frame in original(mos, call, request):
            if frame.WhichOneof("frame") != "heartbeat":
                yield frame

    _watch(patches, watch)


@mutant("stream-outlives-its-right", "revocation/*", *_WATCH)
def _stream_outlives(patches: Patches) -> None:
    """A stream goes on after the token is revoked or the grant deleted that it needed."""

    async def during(self: Any, awaitable: Any) -> Any:
        return await awaitable

    patches.set(standing.Standing, "during", during)


# Blobs.


@mutant("download-loses-a-frame", "blob*/*", "uploads/*", "streams/*")
def _download_loses(patches: Patches) -> None:
    """A download of several data frames leaves out the second."""

    async def read(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> AsyncIterator[Any]:
        number = 0
        async for frame in original(mos, call, request):
            number += frame.WhichOneof("frame") == "data"
            if not (number == 2 and frame.WhichOneof("frame") == "data"):
                yield frame

    use_case(patches, "ReadBlob", read)


@mutant("download-from-the-beginning", "blob*/*", "uploads/*")
def _download_beginning(patches: Patches) -> None:
    """A download begins at the first byte, whatever offset it was asked for."""

    async def read(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> AsyncIterator[Any]:
        request.ClearField("offset")
        async for frame in original(mos, call, request):
            yield frame

    use_case(patches, "ReadBlob", read)


@mutant("upload-of-other-bytes", "blob*/*", "uploads/*")
def _upload_other(patches: Patches) -> None:
    """An upload succeeds though its bytes do not have the announced digest."""

    async def write(original: Callable[..., Any], mos: Any, call: Any, first: Any, rest: Any) -> Any:
        import hashlib

        from memos_server._pb.mip.v1.blob_service_pb2 import WriteBlobResponse

        frames = [frame async for frame in rest]
        data = b"".join(frame.data.data for frame in frames)
        if frames and hashlib.sha256(data).hexdigest() != first.header.digest.removeprefix("sha256:"):
            return WriteBlobResponse(digest=first.header.digest, size=first.header.size)

        async def again() -> AsyncIterator[Any]:
            for frame in frames:
                yield frame

        return await original(mos, call, first, again())

    use_case(patches, "WriteBlob", write)


@mutant("upload-seen-before-it-ends", "blob*/*", "uploads/*")
def _upload_seen(patches: Patches) -> None:
    """FindMissingBlobs says of every blob that the cube holds it."""
    after(patches, "FindMissingBlobs", lambda response: response.ClearField("digests"))


@mutant("upload-forgotten", "blob*/*", "uploads/*")
def _upload_forgotten(patches: Patches) -> None:
    """QueryWrite knows nothing of an upload that was broken off."""
    after(patches, "QueryWrite", lambda response: response.Clear())


@mutant("blob-not-held-is-named", "blob*/*", "uploads/*", "memor*/*", "reading-memories/*")
def _blob_not_held(patches: Patches) -> None:
    """A memory may name a blob that the cube does not hold."""
    from memos_server.mem_os.blob_access import known_blobs

    async def all_of_them(txn: Any, call: Any, cube: Any, digests: Any) -> Any:
        return dict.fromkeys(digests, 1)

    everywhere(patches, "known_blobs", known_blobs, all_of_them)


# Bulk additions.


@mutant("bulk-loses-a-batch", "bulk-add/*")
def _bulk_loses(patches: Patches) -> None:
    """Of several batches the last one is not stored."""

    async def bulk(original: Callable[..., Any], mos: Any, call: Any, first: Any, rest: Any) -> Any:
        async def shortened() -> AsyncIterator[Any]:
            frames = [frame async for frame in rest]
            batches = [frame for frame in frames if frame.HasField("batch")]
            for frame in frames:
                if len(batches) < 2 or frame is not batches[-1]:
                    yield frame

        return await original(mos, call, first, shortened())

    use_case(patches, "BulkAddMemories", bulk)


@mutant("bulk-commits-each-batch", "bulk-add/*")
def _bulk_each(patches: Patches) -> None:
    """Each batch of a stream becomes a commit of its own, with or without a finish."""

    async def bulk(original: Callable[..., Any], mos: Any, call: Any, first: Any, rest: Any) -> Any:
        from memos_server._pb.mip.v1.memory_service_pb2 import AddMemoriesRequest, BulkAddMemoriesResponse
        from memos_server.mem_os import adding

        count, last = 0, None
        async for frame in rest:
            if frame.HasField("batch"):
                request = AddMemoriesRequest(parent=first.header.parent, memories=frame.batch.memories)
                last = await adding.add_memories(mos, call, request)
                count += len(frame.batch.memories)
        return BulkAddMemoriesResponse(commit=last.commit if last else None, memory_count=count)

    use_case(patches, "BulkAddMemories", bulk)


@mutant("bulk-counts-wrong", "bulk-add/*")
def _bulk_counts(patches: Patches) -> None:
    """BulkAddMemories reports one memory more than it added."""

    def change(response: Any) -> None:
        response.memory_count += 1

    after(patches, "BulkAddMemories", change)


@mutant("stream-ends-without-finish", "bulk-add/*", "blob*/*", "uploads/*")
def _no_finish(patches: Patches) -> None:
    """A stream that ends without `finish` counts as finished."""

    for rpc in ("BulkAddMemories", "WriteBlob"):

        async def stream(original: Callable[..., Any], mos: Any, call: Any, first: Any, rest: Any) -> Any:
            async def completed() -> AsyncIterator[Any]:
                finished = False
                async for frame in rest:
                    finished = finished or frame.finish
                    yield frame
                if not finished:
                    yield type(first)(finish=True)

            return await original(mos, call, first, completed())

        use_case(patches, rpc, stream)
