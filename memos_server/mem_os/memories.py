"""Reading memories: one, several, all, and the versions of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from memos_server import names
from memos_server._pb.mip.v1.common_pb2 import VIEW_SEALED, Sealed
from memos_server._pb.mip.v1.cube_pb2 import CubeContent
from memos_server._pb.mip.v1.memory_pb2 import (
    DTYPE_FLOAT32,
    MEMORY_STATE_DELETED,
    MEMORY_STATE_PURGED,
    Memory,
    Vector,
)
from memos_server._pb.mip.v1.memory_service_pb2 import (
    BatchGetMemoriesRequest,
    BatchGetMemoriesResponse,
    GetMemoryRequest,
    GetMemoryResponse,
    ListMemoriesRequest,
    ListMemoriesResponse,
    ListMemoryRevisionsRequest,
    ListMemoryRevisionsResponse,
)
from memos_server.errors import MipError, invalid_field
from memos_server.graph_dbs.base import OPEN, CubeRow, Kind, Reader, Version
from memos_server.mem_os import filters
from memos_server.mem_os.access import CubeView, denied
from memos_server.mem_os.context import Call, Mos, at_revision, existing_cube
from memos_server.mem_os.paging import RESPONSE_BYTES, Pages, page_size
from memos_server.mem_os.render import hide_names, memory_message, visible_memories

_SCAN = 5000
"""The most memories that one page examines; a page of a choosy filter ends early, with a token to go on."""
_STEP = 256
"""How many memories are read at once where a filter leaves some out."""


def not_found(cube_id: str, memory_id: str, revision: int | None) -> MipError:
    """Returns the error for a memory that is not there, or hidden."""
    at = f" at revision {revision}" if revision else ""
    name = names.memory_name(cube_id, memory_id)
    return MipError("MEMORY_NOT_FOUND", f"{name} does not exist{at}", metadata={"name": name})


def state_of(version: Version) -> int:
    """Returns the state that a version is reported in: purged is purged at every revision."""
    return MEMORY_STATE_PURGED if version.current_state == MEMORY_STATE_PURGED else version.state


async def find(txn: Reader, call: Call, cube: CubeRow, memory_id: str, revision: int | None = None) -> Version:
    """Returns the version of a memory that the caller sees.

    Raises:
        MipError: MEMORY_NOT_FOUND.
    """
    version = (await txn.versions(cube.key, Kind.MEMORY, [memory_id], revision)).get(memory_id)
    if version is None or not call.view(cube.id).sees(version):
        raise not_found(cube.id, memory_id, revision)
    return version


async def get_memory(mos: Mos, call: Call, request: GetMemoryRequest) -> GetMemoryResponse:
    """See MemoryService.GetMemory."""
    cube_id, memory_id = names.parse_memory(request.name)

    async def work(txn: Reader) -> GetMemoryResponse:
        cube = await existing_cube(txn, cube_id)
        revision = at_revision(cube, request.as_of_revision)
        version = await find(txn, call, cube, memory_id, revision)
        message = memory_message(cube_id, version)
        hidden = await hide_names(txn, call, cube, [message])
        if request.view == VIEW_SEALED:
            if version.current_state == MEMORY_STATE_PURGED:
                raise MipError(
                    "MEMORY_PURGED", f"{request.name} is purged", metadata={"revision": str(version.current_revision)}
                )
            if hidden:
                raise denied(request.name)
            return GetMemoryResponse(sealed=Sealed(payload=version.payload, salt=version.salt))
        if request.include_vectors and version.content is not None:
            await _add_vector(txn, cube, version, message)
        return GetMemoryResponse(memory=message)

    return await mos.read(work, brief=True)


async def _add_vector(txn: Reader, cube: CubeRow, version: Version, message: Memory) -> None:
    assert version.content is not None
    data = (await txn.vectors([version.content])).get(version.content)
    if data is not None:
        settings = CubeContent.FromString(cube.settings.payload)
        dimension = len(data) // np.dtype("<f4").itemsize
        message.vectors.append(
            Vector(model=settings.embedding_model, dtype=DTYPE_FLOAT32, dimension=dimension, data=data)
        )


async def batch_get_memories(mos: Mos, call: Call, request: BatchGetMemoriesRequest) -> BatchGetMemoriesResponse:
    """See MemoryService.BatchGetMemories."""
    cube_id = names.parse_cube(request.parent, "parent")
    ids = ids_in(cube_id, request.names, "names")

    async def work(txn: Reader) -> BatchGetMemoriesResponse:
        cube = await existing_cube(txn, cube_id)
        revision = at_revision(cube, request.as_of_revision)
        found = await txn.versions(cube.key, Kind.MEMORY, ids, revision)
        view = call.view(cube_id)
        for memory_id in ids:
            if memory_id not in found or not view.sees(found[memory_id]):
                raise not_found(cube_id, memory_id, revision)
        if sum(len(found[memory_id].payload) + 512 for memory_id in ids) > RESPONSE_BYTES:
            raise MipError("RESPONSE_TOO_LARGE", f"the {len(ids)} memories do not fit one response")
        return BatchGetMemoriesResponse(
            memories=await visible_memories(txn, call, cube, [found[memory_id] for memory_id in ids])
        )

    return await mos.read(work)


def id_in(cube_id: str, memory_name: str, field: str) -> str:
    """Returns the id of a memory's name, which must lie in a cube."""
    parent, memory_id = names.parse_memory(memory_name, field)
    if parent != cube_id:
        raise invalid_field(field, f"must lie in {names.cube_name(cube_id)}", "INVALID_NAME")
    return memory_id


def ids_in(cube_id: str, memory_names: Iterable[str], field: str) -> list[str]:
    """Returns the ids of memory names, all of which must lie in a cube, each once."""
    ids: dict[str, None] = {}
    for number, name in enumerate(memory_names):
        memory_id = id_in(cube_id, name, f"{field}[{number}]")
        if memory_id in ids:
            raise invalid_field(f"{field}[{number}]", "is named twice", "INVALID_NAME")
        ids[memory_id] = None
    return list(ids)


async def list_memories(mos: Mos, call: Call, request: ListMemoriesRequest) -> ListMemoriesResponse:
    """See MemoryService.ListMemories."""
    cube_id = names.parse_cube(request.parent, "parent")
    filter_ = filters.parse(request.filter)
    size = page_size(mos, request.page_size)
    pages = Pages(mos.pages, call, request)
    after = pages.number(request.page_token, "after", 0)
    pinned = pages.number(request.page_token, "revision", request.as_of_revision)

    async def work(txn: Reader) -> ListMemoriesResponse:
        cube = await existing_cube(txn, cube_id)
        asked = at_revision(cube, pinned)
        # Later pages read at the revision of the first, so that a listing is of one moment.
        revision = asked or cube.revision
        current = revision == cube.revision
        view = call.view(cube_id)
        gone = () if request.show_deleted else (MEMORY_STATE_DELETED, MEMORY_STATE_PURGED)
        step = _STEP if request.filter else min(size + 1, _STEP)
        kept: list[Memory] = []
        position, scanned, filled, more, full = after, 0, 0, True, False
        # A page that is full goes on to the next memory that the caller sees: a token promises one.
        while more and not full and scanned < _SCAN:
            rows = await _following(txn, cube, view, position, None if current else revision, step)
            more = len(rows) == step
            scanned += len(rows)
            listed = [version for version in rows if state_of(version) not in gone and view.sees(version)]
            messages = [memory_message(cube_id, version) for version in listed]
            # Hidden names go before the filter looks, or it could be asked for them.
            await hide_names(txn, call, cube, messages)
            for version, message in zip(listed, messages, strict=True):
                if filter_.matches(message):
                    filled += len(version.payload) + 512
                    full = len(kept) == size or (filled > RESPONSE_BYTES and bool(kept))
                    if full:
                        break
                    kept.append(message)
                position = version.item
            position = rows[-1].item if rows and not full else position
        token = pages.token(after=position, revision=revision) if more or full else ""
        return ListMemoriesResponse(memories=kept, next_page_token=token)

    return await mos.read(work)


async def _following(
    txn: Reader, cube: CubeRow, view: CubeView, position: int, revision: int | None, step: int
) -> Sequence[Version]:
    """Returns the next versions to list. Who was granted single memories gets those, as if the cube held no others."""
    if view.rank:
        clearance = None if view.full else view.clearance
        return await txn.list_versions(cube.key, Kind.MEMORY, position, step, revision, clearance=clearance)
    granted = await txn.versions(cube.key, Kind.MEMORY, view.granted, revision)
    return sorted(
        (version for version in granted.values() if version.item > position), key=lambda version: version.item
    )[:step]


async def list_memory_revisions(
    mos: Mos, call: Call, request: ListMemoryRevisionsRequest
) -> ListMemoryRevisionsResponse:
    """See MemoryService.ListMemoryRevisions."""
    cube_id, memory_id = names.parse_memory(request.name)
    size = page_size(mos, request.page_size)
    pages = Pages(mos.pages, call, request)
    before = pages.number(request.page_token, "before", OPEN)

    async def work(txn: Reader) -> ListMemoryRevisionsResponse:
        cube = await existing_cube(txn, cube_id)
        current = await find(txn, call, cube, memory_id)
        view = call.view(cube_id)
        if current.state == MEMORY_STATE_PURGED:
            return ListMemoryRevisionsResponse(memories=await visible_memories(txn, call, cube, [current]))
        page: list[Version] = []
        position, filled, full = before, 0, False
        # Pages are cut among the versions that the caller sees, so that they do not count the others.
        while not full and (rows := await txn.history(cube.key, Kind.MEMORY, memory_id, position, _STEP)):
            for version in rows:
                position = version.from_revision
                if not view.sees(version):
                    continue
                filled += len(version.payload) + 512
                full = len(page) == size or (filled > RESPONSE_BYTES and bool(page))
                if full:
                    break
                page.append(version)
        token = pages.token(before=page[-1].from_revision) if full else ""
        return ListMemoryRevisionsResponse(
            memories=await visible_memories(txn, call, cube, page), next_page_token=token
        )

    return await mos.read(work)
