"""BulkAddMemories: batches that come as a stream become one commit, whole or not at all.

A request of AddMemories and its answer fit the default message size of gRPC; a commit may be much larger. What comes is
checked, sealed and embedded batch by batch, and held in memory, within a limit for the whole server, until finish. Of a
repeated call only the digest is made: at finish it says whether it is the same.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from memos_server import names
from memos_server._pb.mip.v1.cube_pb2 import CubeContent
from memos_server._pb.mip.v1.memory_pb2 import Memory
from memos_server._pb.mip.v1.memory_service_pb2 import BulkAddMemoriesRequest, BulkAddMemoriesResponse
from memos_server.configs.settings import LimitSettings
from memos_server.errors import MipError, invalid_field
from memos_server.graph_dbs.base import CubeRow, Reader, Writer
from memos_server.mem_os.adding import drafts_of, new_versions
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.index_batches import added_alone
from memos_server.mem_os.mutation import Outcome, commit, locked_cube, mutate, was_used, without_request_id
from memos_server.mem_os.render import commit_of, own_commit
from memos_server.mem_os.sealing import Draft
from memos_server.mem_os.staging import StagingShare


async def bulk_add_memories(
    mos: Mos, call: Call, request: BulkAddMemoriesRequest, frames: AsyncIterator[BulkAddMemoriesRequest]
) -> BulkAddMemoriesResponse:
    """See MemoryService.BulkAddMemories; `request` is the first frame, the header."""
    header = request.header
    cube_id = names.parse_cube(header.parent, "header.parent")

    async def before(txn: Reader) -> tuple[CubeRow, bool]:
        known = await was_used(txn, call, header.parent, header.request_id)
        return await existing_cube(txn, cube_id, deleted=known), known

    cube, is_repeated = await mos.read(before, brief=True)
    with mos.staging.share() as share:
        stream = _Stream(mos, cube, header, share, is_repeated=is_repeated)
        async for frame in frames:
            await stream.take(frame)
        drafts, digest = stream.finished()

        async def work(txn: Writer) -> Outcome[BulkAddMemoriesResponse]:
            if is_repeated:
                message = "the request_id was forgotten while its repetition came; the next call is a new one"
                raise MipError("BACKEND_UNAVAILABLE", message, retry_after_s=1.0)
            now = await locked_cube(txn, cube_id, header.expected_revision)
            versions = await new_versions(txn, call, now, drafts)
            row = await commit(txn, call, now, versions, cause=header.cause, request_id=header.request_id)
            response = BulkAddMemoriesResponse(commit=own_commit(cube_id, row), memory_count=len(versions))
            return Outcome(header.parent, now, row.revision, response, added=added_alone(now, row, versions))

        async def respond(txn: Reader, _: str, revision: int) -> BulkAddMemoriesResponse:
            now = await existing_cube(txn, cube_id, deleted=True)
            return BulkAddMemoriesResponse(
                commit=await commit_of(txn, call, now, revision), memory_count=stream.memory_count
            )

        response = await mutate(
            mos,
            call,
            resource=header.parent,
            request=digest,
            request_id=header.request_id,
            work=work,
            respond=respond,
        )
    response.index_pending = mos.keeper.broken(cube.uid)
    return response


class _Stream:
    """What a stream has brought so far.

    Attributes:
        memory_count: The number of memories.
    """

    def __init__(
        self,
        mos: Mos,
        cube: CubeRow,
        header: BulkAddMemoriesRequest.Header,
        share: StagingShare,
        *,
        is_repeated: bool,
    ) -> None:
        self._mos = mos
        self._is_repeated = is_repeated
        self._cube_id = cube.id
        self._settings = CubeContent.FromString(cube.settings.payload)
        self._share = share
        self._drafts: list[Draft] = []
        self._taken: set[str] = set()
        self._finished = False
        self.memory_count = 0
        # What a repeated call must equal: header and memories, however they are spread over batches.
        self._digest = hashlib.sha256(without_request_id(header))

    async def take(self, frame: BulkAddMemoriesRequest) -> None:
        """Takes the next frame."""
        kind = frame.WhichOneof("frame")
        if self._finished or kind not in ("batch", "finish"):
            raise MipError("INVALID_STREAM", f"a frame {kind or 'without content'} came out of order")
        if kind == "finish":
            if not frame.finish:
                raise MipError("INVALID_STREAM", "finish is false, which says nothing")
            self._finished = True
            return
        memories = frame.batch.memories
        self.memory_count += len(memories)
        if not self._is_repeated:
            self._check(frame.ByteSize())
        await asyncio.get_running_loop().run_in_executor(self._mos.cpu, self._add_to_digest, list(memories))
        if self._is_repeated:
            # Nothing of it is stored again, and nothing about the cube as it is now refuses it.
            return
        drafts = await drafts_of(self._mos, self._cube_id, self._settings, memories, "batch.memories", self._taken)
        for draft in drafts:
            # The sealed bytes say all but where it derives from, which the commit looks at once more.
            draft.message = Memory(provenance=draft.message.provenance)
            draft.text = ""
        self._drafts += drafts

    def _check(self, size: int) -> None:
        limits: LimitSettings = self._mos.settings.limits
        if self.memory_count > limits.max_bulk_memories:
            error = invalid_field(
                "batch.memories", f"the stream brings more than {limits.max_bulk_memories} memories", "TOO_MANY_ITEMS"
            )
            error.metadata["max_bulk_memories"] = str(limits.max_bulk_memories)
            raise error
        if self._share.taken + size > limits.max_bulk_bytes:
            raise MipError(
                "REQUEST_TOO_LARGE",
                f"the stream brings more than {limits.max_bulk_bytes} bytes",
                metadata={"max_bulk_bytes": str(limits.max_bulk_bytes)},
            )
        self._share.take(size)

    def _add_to_digest(self, memories: list[Memory]) -> None:
        for memory in memories:
            raw = memory.SerializeToString(deterministic=True)
            self._digest.update(len(raw).to_bytes(8, "little"))
            self._digest.update(raw)

    def finished(self) -> tuple[list[Draft], bytes]:
        """Returns what is to be committed, nothing for a repeated call, and the digest of the request.

        Raises:
            MipError: INVALID_STREAM when finish or every memory is missing.
        """
        if not self._finished:
            raise MipError("INVALID_STREAM", "the stream ended without finish; nothing was stored")
        if not self.memory_count:
            raise MipError("INVALID_STREAM", "the stream brought no memory")
        return self._drafts, self._digest.digest()
