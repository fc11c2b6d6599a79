"""Reading the log: commits, their changes, and Watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from memos_server import names
from memos_server._pb.mip.v1.commit_pb2 import Change
from memos_server._pb.mip.v1.common_pb2 import VIEW_SEALED
from memos_server._pb.mip.v1.cube_service_pb2 import (
    GetCommitRequest,
    GetCommitResponse,
    ListCommitChangesRequest,
    ListCommitChangesResponse,
    ListCommitsRequest,
    ListCommitsResponse,
    WatchCubeRequest,
    WatchCubeResponse,
)
from memos_server.errors import MipError
from memos_server.graph_dbs.base import OPEN, ChangeRow, CommitRow, CubeRow, Reader
from memos_server.mem_cube.log import now_us, timestamp
from memos_server.mem_os.access import denied
from memos_server.mem_os.context import Call, Mos, at_revision, existing_cube
from memos_server.mem_os.paging import RESPONSE_BYTES, Pages, page_size
from memos_server.mem_os.render import commit_message, visible_changes

FRAME_BYTES = 1_000_000
"""The most bytes of changes in a frame of WatchCube, a little under 1 MiB for the bytes around them."""
_STEP = 1000
_SCAN = 50_000
"""The most changes that one page examines; one whose reader sees few of very many ends early, with a token."""


def _require_sealed(call: Call, cube_id: str, view: int) -> bool:
    """Returns whether exact bytes were asked for; they hide nothing, so they need full clearance."""
    if view != VIEW_SEALED:
        return False
    if not call.view(cube_id, whole=True).full:
        raise denied(names.cube_name(cube_id))
    return True


async def _commit_row(txn: Reader, cube: CubeRow, revision: int) -> CommitRow:
    at_revision(cube, revision, "revision")
    (row,) = await txn.commits(cube.key, revision, revision, 1, newest_first=False)
    return row


async def list_commits(mos: Mos, call: Call, request: ListCommitsRequest) -> ListCommitsResponse:
    """See CubeService.ListCommits."""
    cube_id = names.parse_cube(request.parent, "parent")
    call.view(cube_id, whole=True)
    size = page_size(mos, request.page_size)
    pages = Pages(mos.pages, call, request)
    before = pages.number(request.page_token, "before", OPEN)

    async def work(txn: Reader) -> ListCommitsResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        rows = await txn.commits(cube.key, 1, before - 1, size + 1, newest_first=True)
        token = pages.token(before=rows[size - 1].revision) if len(rows) > size else ""
        commits = [await commit_message(txn, call, cube, row) for row in rows[:size]]
        return ListCommitsResponse(commits=commits, next_page_token=token)

    return await mos.read(work)


async def get_commit(mos: Mos, call: Call, request: GetCommitRequest) -> GetCommitResponse:
    """See CubeService.GetCommit."""
    cube_id, revision = names.parse_commit(request.name)
    call.view(cube_id, whole=True)
    sealed = _require_sealed(call, cube_id, request.view)

    async def work(txn: Reader) -> GetCommitResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        row = await _commit_row(txn, cube, revision)
        if sealed:
            return GetCommitResponse(sealed_header=row.header)
        return GetCommitResponse(commit=await commit_message(txn, call, cube, row))

    return await mos.read(work)


async def list_commit_changes(mos: Mos, call: Call, request: ListCommitChangesRequest) -> ListCommitChangesResponse:
    """See CubeService.ListCommitChanges."""
    cube_id, revision = names.parse_commit(request.parent, "parent")
    view = call.view(cube_id, whole=True)
    sealed = _require_sealed(call, cube_id, request.view)
    size = page_size(mos, request.page_size, 1000, 10_000)
    pages = Pages(mos.pages, call, request)
    after = pages.number(request.page_token, "after", -1)

    async def work(txn: Reader) -> ListCommitChangesResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        commit = await _commit_row(txn, cube, revision)
        kept: list[ChangeRow] = []
        position, filled, full = after, 0, False
        # Pages are cut among the changes that the caller sees, so that they do not count the others.
        while not full and position < min(commit.change_count - 1, after + _SCAN):
            rows = await txn.changes(cube.key, revision, position, _STEP)
            for row in await visible_changes(txn, view, cube, rows):
                filled += len(row.change) + 8
                full = len(kept) == size or filled > RESPONSE_BYTES
                if full:
                    break
                kept.append(row)
            position = kept[-1].sequence if full else rows[-1].sequence
        more = full or position < commit.change_count - 1
        response = ListCommitChangesResponse(next_page_token=pages.token(after=position) if more else "")
        _fill(response, kept, sealed=sealed)
        return response

    return await mos.read(work)


def _fill(
    target: ListCommitChangesResponse | WatchCubeResponse.Changes, rows: list[ChangeRow], *, sealed: bool
) -> None:
    if sealed:
        target.sealed_changes.extend(row.change for row in rows)
    else:
        target.changes.extend(Change.FromString(row.change) for row in rows)


async def watch_cube(mos: Mos, call: Call, request: WatchCubeRequest) -> AsyncIterator[WatchCubeResponse]:
    """See CubeService.WatchCube. It reads the log as the client takes it, so a slow client costs no memory here."""
    cube_id = names.parse_cube(request.name)
    call.view(cube_id, whole=True)
    sealed = _require_sealed(call, cube_id, request.view)

    async def head(txn: Reader) -> CubeRow:
        return await existing_cube(txn, cube_id, deleted=True)

    cube = await mos.read(head)
    if request.start_revision > cube.revision + 1:
        raise MipError(
            "REVISION_NOT_FOUND",
            f"start_revision {request.start_revision} is beyond the next revision {cube.revision + 1}",
            metadata={"current_revision": str(cube.revision)},
        )
    following = request.start_revision or cube.revision + 1
    moved = mos.heads.subscribe(cube.id)
    try:
        # A frame without content: from here on nothing is missed, which the client is told before there is anything.
        yield WatchCubeResponse()
        while True:
            moved.clear()
            cube = await mos.read(head)
            while following <= cube.revision:
                async for frame in _frames(mos, call, cube, following, sealed=sealed):
                    yield frame
                following += 1
            if mos.draining:
                raise MipError(
                    "SHUTTING_DOWN",
                    "the server is shutting down",
                    metadata={"last_revision": str(following - 1)},
                    retry_after_s=1.0,
                )
            try:
                await asyncio.wait_for(moved.wait(), mos.settings.watch.heartbeat_s)
            except TimeoutError:
                beat = WatchCubeResponse.Heartbeat(revision=following - 1, time=timestamp(now_us()))
                yield WatchCubeResponse(heartbeat=beat)
    finally:
        mos.heads.unsubscribe(cube.id, moved)


async def _frames(
    mos: Mos, call: Call, cube: CubeRow, revision: int, *, sealed: bool
) -> AsyncIterator[WatchCubeResponse]:
    view = call.view(cube.id, whole=True)

    async def begin(txn: Reader) -> WatchCubeResponse:
        row = await _commit_row(txn, cube, revision)
        if sealed:
            return WatchCubeResponse(sealed_header=row.header)
        return WatchCubeResponse(commit=await commit_message(txn, call, cube, row))

    yield await mos.read(begin)
    after = -1
    while True:

        async def step(txn: Reader, after: int = after) -> tuple[int, list[ChangeRow]]:
            rows = await txn.changes(cube.key, revision, after, _STEP)
            return (rows[-1].sequence if rows else -1), await visible_changes(txn, view, cube, rows)

        after, rows = await mos.read(step)
        if after < 0:
            break
        for group in _groups(rows):
            frame = WatchCubeResponse.Changes()
            _fill(frame, group, sealed=sealed)
            yield WatchCubeResponse(changes=frame)
    yield WatchCubeResponse(end=WatchCubeResponse.End(revision=revision))


def _groups(rows: list[ChangeRow]) -> list[list[ChangeRow]]:
    groups: list[list[ChangeRow]] = []
    filled = FRAME_BYTES
    for row in rows:
        size = len(row.change) + 8
        if filled + size > FRAME_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(row)
        filled += size
    return groups
