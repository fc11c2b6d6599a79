"""BlobService: bytes in and out of a cube, judged per cube."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping

from memos_server import names
from memos_server._pb.mip.v1.blob_service_pb2 import (
    BlobData,
    BlobHeader,
    FindMissingBlobsRequest,
    FindMissingBlobsResponse,
    QueryWriteRequest,
    QueryWriteResponse,
    ReadBlobRequest,
    ReadBlobResponse,
    WriteBlobRequest,
    WriteBlobResponse,
)
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_PURGED
from memos_server.errors import MipError, invalid_field
from memos_server.graph_dbs.base import CubeRow, Reader, Writer
from memos_server.mem_cube.log import now_us
from memos_server.mem_os.blob_access import known_blobs
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.purging import order_compaction

_LOOKS = 5
_LOOK_S = 0.2


async def _cube(mos: Mos, cube_id: str) -> CubeRow:
    async def read(txn: Reader) -> CubeRow:
        return await existing_cube(txn, cube_id)

    return await mos.read(read, brief=True)


async def find_missing_blobs(mos: Mos, call: Call, request: FindMissingBlobsRequest) -> FindMissingBlobsResponse:
    """See BlobService.FindMissingBlobs."""
    cube_id = names.parse_cube(request.parent, "parent")
    call.view(cube_id, whole=True)

    async def read(txn: Reader) -> FindMissingBlobsResponse:
        cube = await existing_cube(txn, cube_id)
        held = await known_blobs(txn, call, cube, request.digests)
        return FindMissingBlobsResponse(digests=[digest for digest in request.digests if digest not in held])

    return await mos.read(read)


async def write_blob(
    mos: Mos, call: Call, request: WriteBlobRequest, frames: AsyncIterator[WriteBlobRequest]
) -> WriteBlobResponse:
    """See BlobService.WriteBlob; `request` is the first frame, the header."""
    header = request.header
    cube = await _cube(mos, names.parse_cube(header.parent, "header.parent"))
    if header.size > mos.settings.limits.max_blob_bytes:
        limit = mos.settings.limits.max_blob_bytes
        raise invalid_field("header.size", f"must be at most {limit}", "FIELD_TOO_LARGE")
    try:
        return await _upload(mos, call, cube, header, frames)
    except BaseException:
        # A purge may have come in between, which erased what it found; what came later would be left over.
        await asyncio.shield(_erase_if_purged(mos, cube))
        raise


async def _upload(
    mos: Mos, call: Call, cube: CubeRow, header: BlobHeader, frames: AsyncIterator[WriteBlobRequest]
) -> WriteBlobResponse:
    offset = header.offset
    finished = False
    # Who sends all bytes of a blob has them, also when the cube holds it already and the store looks no further.
    running = hashlib.sha256() if not offset else None
    async for frame in frames:
        kind = frame.WhichOneof("frame")
        if kind == "data" and not finished:
            if frame.data.offset != offset:
                raise MipError("INVALID_STREAM", f"a data frame begins at {frame.data.offset}, not at {offset}")
            if offset + len(frame.data.data) > header.size:
                raise MipError("DIGEST_MISMATCH", f"more bytes came than the {header.size} that the header announces")
            await _cube(mos, cube.id)  # deleted or purged meanwhile, it takes no more
            await mos.blobs.append(cube.uid, header.digest, offset, frame.data.data)
            offset += len(frame.data.data)
            if running is not None:
                running.update(frame.data.data)
        elif kind == "finish" and not finished:
            finished = True
        else:
            raise MipError("INVALID_STREAM", f"a frame {kind or 'without content'} came out of order")
    if not finished:
        raise MipError("INVALID_STREAM", "the stream ended without finish; QueryWrite tells where to go on")
    if offset < header.size:
        raise MipError("UPLOAD_INCOMPLETE", f"{offset} of {header.size} bytes came; QueryWrite tells where to go on")
    proven = running is not None and f"sha256:{running.hexdigest()}" == header.digest
    if not proven:
        await _refuse_unproven(mos, call, cube, header, whole=running is not None)
    # Who goes away now does not let go of the lock: the record would be written later, and meanwhile a compaction would
    # erase the bytes that it is about to name.
    await asyncio.shield(asyncio.create_task(_keep(mos, call, cube, header, proven=proven)))
    return WriteBlobResponse(digest=header.digest, size=header.size)


async def _keep(mos: Mos, call: Call, cube: CubeRow, header: BlobHeader, *, proven: bool) -> None:
    """Makes an uploaded blob one of the cube's, in the store and in the record."""

    async def record(txn: Writer) -> None:
        await txn.lock_cube(cube.id)
        now = await existing_cube(txn, cube.id)
        if not await txn.put_blob(now.key, header.digest, header.size, now_us()):
            raise being_erased
        if proven:
            await txn.put_blob_proof(now.key, header.digest, call.principal)

    async def held(txn: Reader) -> bool:
        return bool(await txn.blobs(cube.key, [header.digest]))

    async def take_back(txn: Writer) -> None:
        await txn.doom_blob(cube.key, header.digest)
        await order_compaction(txn, call, cube, cube.revision)

    being_erased = MipError(
        "BACKEND_UNAVAILABLE", "the bytes that were purged under this digest are being erased; send the blob again"
    )
    async with mos.blob_lock(cube.uid):
        await mos.blobs.finish(cube.uid, header.digest, header.size)
        try:
            await mos.store.write(record)
        except MipError as error:
            # What another server erases now was perhaps erased before these bytes came: no purge would reach them.
            if error is being_erased and not await mos.read(held):
                await mos.blobs.delete(cube.uid, header.digest)
            raise
        # Another server may have erased the bytes in between, which is over now: the record did not know them then.
        # Looked at twice, as a third one may be sending them.
        if mos.shared and await _gone(mos, cube, header):
            await mos.store.write(take_back)
            raise being_erased


async def _gone(mos: Mos, cube: CubeRow, header: BlobHeader) -> bool:
    """Returns whether the bytes of a blob are missing, and stay so for a moment."""
    for _ in range(_LOOKS):
        if await mos.blobs.size(cube.uid, header.digest) == header.size:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


async def _erase_if_purged(mos: Mos, cube: CubeRow) -> None:
    async def purged(txn: Reader) -> bool:
        now = await existing_cube(txn, cube.id, deleted=True)
        return now.settings.state == MEMORY_STATE_PURGED

    async with mos.blob_lock(cube.uid):
        if await mos.read(purged, brief=True):
            await mos.blobs.drop_cube(cube.uid)


async def _refuse_unproven(mos: Mos, call: Call, cube: CubeRow, header: BlobHeader, *, whole: bool) -> None:
    """Ends an upload that shows no possession of a blob which the cube holds already, or whose bytes are wrong. The
    answers are those for a blob that the cube does not hold; its bytes are compared by the store."""
    if await mos.blobs.size(cube.uid, header.digest) is None:
        return

    async def read(txn: Reader) -> tuple[bool, bool]:
        held = bool(await txn.blobs(cube.key, [header.digest]))
        return held, header.digest in await known_blobs(txn, call, cube, [header.digest])

    if whole:
        # The blob stays as it is; the store drops what came.
        await mos.blobs.finish(cube.uid, header.digest, header.size)
        raise MipError("DIGEST_MISMATCH", "the bytes do not have the digest that the header announces")
    held, known = await mos.read(read)
    if not held and await mos.blobs.upload_size(cube.uid, header.digest) >= header.size:
        # A call that was cut off made the blob, and neither recorded it nor dropped the upload: it is finished now.
        return
    if not known:
        raise MipError("UPLOAD_INCOMPLETE", "the upload is unknown; send it from the start")


async def read_blob(mos: Mos, call: Call, request: ReadBlobRequest) -> AsyncIterator[ReadBlobResponse]:
    """See BlobService.ReadBlob."""
    cube_id = names.parse_cube(request.parent, "parent")

    async def read(txn: Reader) -> tuple[CubeRow, int]:
        cube = await existing_cube(txn, cube_id)
        size = (await known_blobs(txn, call, cube, [request.digest])).get(request.digest)
        if size is None:
            raise MipError("BLOB_NOT_FOUND", f"{request.parent} does not hold {request.digest}")
        return cube, size

    cube, size = await mos.read(read)

    async def held(txn: Reader) -> Mapping[str, int]:
        # Once more: a purge may have erased it meanwhile.
        return await txn.blobs(cube.key, [request.digest])

    if request.offset > size:
        raise invalid_field("offset", f"must be at most the size, {size}")
    if await mos.blobs.size(cube.uid, request.digest) not in (size, None):
        # Before any byte of it is read: a file that has grown may have no end.
        raise MipError("DATA_CORRUPT", "the stored blob does not have its size", metadata={"digest": request.digest})
    yield ReadBlobResponse(
        header=BlobHeader(parent=request.parent, digest=request.digest, size=size, offset=request.offset)
    )
    if await mos.blobs.size(cube.uid, request.digest) != size and request.digest in await mos.read(held):
        message = f"the stored bytes of blob {request.digest} are missing or cut off"
        raise MipError("DATA_CORRUPT", message, metadata={"digest": request.digest})
    offset = request.offset
    async for piece in mos.blobs.read(cube.uid, request.digest, request.offset, request.limit):
        yield ReadBlobResponse(data=BlobData(offset=offset, data=piece))
        offset += len(piece)


async def query_write(mos: Mos, call: Call, request: QueryWriteRequest) -> QueryWriteResponse:
    """See BlobService.QueryWrite."""
    cube_id = names.parse_cube(request.parent, "parent")
    call.view(cube_id, whole=True)

    async def read(txn: Reader) -> tuple[CubeRow, int | None]:
        cube = await existing_cube(txn, cube_id)
        return cube, (await known_blobs(txn, call, cube, [request.digest])).get(request.digest)

    cube, size = await mos.read(read)
    if size is not None:
        return QueryWriteResponse(committed_size=size, complete=True)
    return QueryWriteResponse(committed_size=await mos.blobs.upload_size(cube.uid, request.digest))
