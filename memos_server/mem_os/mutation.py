"""The one path of every mutation: replay or work, in one transaction, then the response from what was committed.

A request_id is scoped to (principal, method, resource) and recorded in the transaction of its effect, with a salted
digest of the parsed request. A repeated call finds it there and gets the same response, rebuilt from the commit after
today's access check. Calls that failed are not recorded.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from memos_server import names
from memos_server._pb.mip.v1.commit_pb2 import Head
from memos_server.errors import MipError, invalid_field
from memos_server.graph_dbs.base import AuditRow, CommitRow, CubeRow, NewVersion, Reader, RequestKey, RequestRow, Writer
from memos_server.mem_cube.log import append_commit, now_us
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.index_batches import Added
from memos_server.telemetry.calls import step

R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What the work of a mutation did.

    Attributes:
        result: The name of the resource that it made or changed.
        cube: The cube that got a commit; None when none did.
        revision: The commit's revision; 0 when there is none.
        response: The response, when the work has it at hand; else it is built by `build` or `respond`.
        build: Builds the response from what the work knows, outside the transaction; None leaves it to `respond`.
        added: The commit for the index, where it only added memories.
    """

    result: str
    cube: CubeRow | None = None
    revision: int = 0
    response: R | None = None
    build: Callable[[], Awaitable[R]] | None = None
    added: Added | None = None


class ChangedMeanwhileError(Exception):
    """Another commit changed what a use case had read before its transaction; it prepares its change again."""


Work = Callable[[Writer], Awaitable[Outcome[R]]]
Respond = Callable[[Reader, str, int], Awaitable[R]]


async def replayed(
    txn: Reader, call: Call, resource: str, request: Message | bytes, request_id: str
) -> RequestRow | None:
    """Returns what the request_id was used for, when the request, or the digest of one in pieces, is the same.

    Raises:
        MipError: REQUEST_ID_REUSED when it was another one.
    """
    if not request_id:
        return None
    row = await txn.request(_key(call, resource, request_id))
    # A purge erases the digest of the request that wrote the content; such a request is taken at its word.
    if row is not None and row.digest and row.digest != _digest(row.salt, request):
        raise invalid_field("request_id", "was used with another request", "REQUEST_ID_REUSED")
    return row


async def was_used(txn: Reader, call: Call, resource: str, request_id: str) -> bool:
    """Returns whether a request_id was used, for who cannot compare the request before all of it has come."""
    return bool(request_id) and await txn.request(_key(call, resource, request_id)) is not None


async def mutate(
    mos: Mos,
    call: Call,
    *,
    resource: str,
    request: Message | bytes,
    request_id: str,
    work: Work[R],
    respond: Respond[R],
    changes_access: bool = False,
) -> R:
    """Runs a mutation.

    Args:
        mos: The server.
        call: The call.
        resource: What request_id is scoped to: the name that the request is about.
        request: The parsed request, or a digest of one that came in pieces.
        request_id: Its request_id; empty means that a repeated call is a new one.
        work: Does it, in the transaction.
        respond: Builds the response from the result's name and the commit's revision.
        changes_access: True when it may take somebody's rights away, so that open streams check theirs again.
    """

    async def in_transaction(txn: Writer) -> Outcome[R]:
        row = await replayed(txn, call, resource, request, request_id)
        if row is not None:
            return Outcome(row.result, None, row.revision)
        outcome = await work(txn)
        if request_id:
            salt = secrets.token_bytes(16)
            key = outcome.cube.key if outcome.cube else 0
            new = RequestRow(salt, _digest(salt, request), outcome.result, outcome.revision, now_us(), key)
            await txn.put_request(_key(call, resource, request_id), new)
        return outcome

    async def take_effect() -> Outcome[R]:
        with step("record.write"):
            outcome = await mos.store.write(in_transaction)
        if outcome.cube is not None:
            mos.keeper.moved(outcome.cube.id, outcome.cube.uid, outcome.revision, outcome.added)
            mos.heads.moved(outcome.cube.id)
        if changes_access:
            mos.access_changed()
        return outcome

    # A caller that goes away does not undo the write, and those who wait for its effect hear of it all the same.
    outcome = await asyncio.shield(asyncio.create_task(take_effect()))
    if outcome.response is not None:
        return outcome.response
    if outcome.build is not None:
        return await outcome.build()
    return await mos.read(lambda txn: respond(txn, outcome.result, outcome.revision))


async def locked_cube(txn: Writer, cube_id: str, expected_revision: int = 0, *, deleted: bool = False) -> CubeRow:
    """Takes a cube's lock.

    Raises:
        MipError: CUBE_NOT_FOUND, CUBE_DELETED, CUBE_PURGED, REVISION_MISMATCH.
    """
    await txn.lock_cube(cube_id)
    cube = await existing_cube(txn, cube_id, deleted=deleted)
    expect_revision(cube, expected_revision)
    return cube


def expect_revision(cube: CubeRow, expected_revision: int) -> None:
    """Compares a cube's revision with the one that a caller expects; 0 skips the check.

    A call that names memories makes sure of them first: what exists comes before everything else (MIP-ERRS-009).

    Raises:
        MipError: REVISION_MISMATCH.
    """
    if expected_revision and expected_revision != cube.revision:
        raise MipError(
            "REVISION_MISMATCH",
            f"{names.cube_name(cube.id)} is at revision {cube.revision}, not {expected_revision}",
            metadata={"current_revision": str(cube.revision)},
        )


async def commit(
    txn: Writer,
    call: Call,
    cube: CubeRow,
    versions: Sequence[NewVersion],
    *,
    cause: str,
    request_id: str = "",
    merged_heads: Sequence[Head] = (),
) -> CommitRow:
    """Appends a commit of the caller to a cube whose lock is held.

    Raises:
        MipError: ALREADY_EXISTS when the id of a new item is or was in use.
    """
    parent = CommitRow(cube.revision, cube.head_digest, b"", cube.head_time, 0)
    try:
        return await append_commit(
            txn,
            cube.key,
            cube.uid,
            parent,
            versions,
            principal=call.principal,
            cause=cause,
            request_id=request_id,
            merged_heads=merged_heads,
        )
    except KeyError as taken:
        name = names.absolute(cube.id, taken.args[0])
        raise MipError("ALREADY_EXISTS", f"{name} exists, or existed", metadata={"name": name}) from taken


async def audit(txn: Writer, call: Call, resource: str, *, detail: str = "", revision: int = 0) -> None:
    """Records a call that stands outside the cubes' logs, or concerns a cube as a whole."""
    await txn.put_audit(AuditRow(now_us(), call.principal, call.method, resource, "OK", detail, revision=revision))


def _key(call: Call, resource: str, request_id: str) -> RequestKey:
    return RequestKey(call.principal, call.method, resource, request_id.lower())


def without_request_id(request: Message) -> bytes:
    """Returns what of a request must be equal for a repeated request_id to mean the same call."""
    body = type(request)()
    body.CopyFrom(request)
    body.ClearField("request_id")
    return body.SerializeToString(deterministic=True)


def _digest(salt: bytes, request: Message | bytes) -> bytes:
    body = request if isinstance(request, bytes) else without_request_id(request)
    return hashlib.sha256(salt + body).digest()
