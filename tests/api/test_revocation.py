"""Whoever loses a right loses it in the middle of every streaming RPC, whichever way it is lost, and at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from memos_server._pb.mip.v1 import access_pb2, common_pb2
from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, ReadBlobRequest, WriteBlobRequest
from tests.conftest import World
from tests.support.mip import METHODS, Mip, RpcError, path_of
from tests.support.samples import Scene, build, frames_of

ADMIN, READER, SECRET = access_pb2.ROLE_ADMIN, access_pb2.ROLE_READER, common_pb2.SENSITIVITY_SECRET
STREAMING = sorted(name for name, method in METHODS.items() if method.client_streaming or method.server_streaming)
AT_ONCE_S = 10.0
"""On a machine that does much else; it takes a few milliseconds."""


def test_all_streaming_rpcs_are_known() -> None:
    assert STREAMING == ["BulkAddMemories", "ReadBlob", "WatchCube", "WriteBlob"]


async def _uploading(caller: Mip, rpc: str, frames: list[Message], opened: asyncio.Event) -> None:
    """Sends the first frames and then nothing more: the server must end the call by itself."""
    method = METHODS[rpc]

    async def begun() -> AsyncIterator[bytes]:
        for frame in frames[:-1]:
            yield frame.SerializeToString()
        opened.set()
        await asyncio.sleep(60)

    call = caller.channel.stream_unary(path_of(method))(begun(), metadata=caller.metadata)
    try:
        await call
    except grpc.RpcError as error:
        raise RpcError(error) from None


async def _reading(caller: Mip, rpc: str, frames: list[Message], opened: asyncio.Event) -> None:
    """Takes one frame, and the others only once the right is lost."""
    method = METHODS[rpc]
    stub = caller.channel.unary_stream(
        path_of(method), response_deserializer=GetMessageClass(method.output_type).FromString
    )
    call = stub(frames[0].SerializeToString(), metadata=caller.metadata)
    try:
        await call.read()
        opened.set()
        await asyncio.sleep(0.5)
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.RpcError as error:
        raise RpcError(error) from None


Lose = Callable[[World, Scene, str], Awaitable[object]]


async def _revoke(world: World, _: Scene, token_id: str) -> None:
    await world.admin.RevokeToken(token_id=token_id)


async def _disable(world: World, _: Scene, __: str) -> None:
    await world.admin.DisablePrincipal(name="principals/ann")


async def _ungrant(world: World, scene: Scene, _: str) -> None:
    await world.admin.DeleteGrant(principal="principals/ann", resource=scene.cube)


async def _lower(world: World, scene: Scene, _: str) -> None:
    grant = access_pb2.Grant(
        principal="principals/ann", resource=scene.cube, role=READER, max_sensitivity=common_pb2.SENSITIVITY_PUBLIC
    )
    await world.admin.SetGrant(grant=grant)


WAYS: dict[str, tuple[Lose, tuple[str, str]]] = {
    "the token is revoked": (_revoke, ("UNAUTHENTICATED", "TOKEN_REVOKED")),
    "the principal is disabled": (_disable, ("UNAUTHENTICATED", "TOKEN_REVOKED")),
    "the grant is deleted": (_ungrant, ("PERMISSION_DENIED", "PERMISSION_DENIED")),
    "the grant is lowered": (_lower, ("PERMISSION_DENIED", "PERMISSION_DENIED")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rpc", STREAMING)
async def test_a_stream_ends_when(world: World, rpc: str, way: str) -> None:
    lose, expected = WAYS[way]
    admin = world.admin
    scene = await build(admin, "c")
    frames = await _frames(admin, rpc, scene)
    await world.principal("ann", (scene.cube, ADMIN, SECRET))
    issued = await admin.IssueToken(principal="principals/ann")
    caller = world.caller(issued.token)
    head = (await admin.GetCube(name=scene.cube)).cube.head_digest
    opened = asyncio.Event()
    begin = _uploading if METHODS[rpc].client_streaming else _reading
    stream = asyncio.create_task(begin(caller, rpc, frames, opened))
    await asyncio.wait_for(opened.wait(), 30)
    await asyncio.sleep(0.1)
    assert not stream.done()
    await lose(world, scene, issued.token_id)
    with pytest.raises(RpcError) as raised:
        await asyncio.wait_for(stream, AT_ONCE_S)
    assert (raised.value.code, raised.value.reason) == expected
    assert (await admin.GetCube(name=scene.cube)).cube.head_digest == head


async def test_the_change_of_another_s_access_does_not_disturb_a_stream(world: World) -> None:
    admin = world.admin
    scene = await build(admin, "c")
    ann = await world.principal("ann", (scene.cube, READER, SECRET))
    frames: asyncio.Queue[object] = asyncio.Queue()

    async def watch() -> None:
        async for frame in ann.WatchCube(name=scene.cube):
            frames.put_nowait(frame)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.2)
    await world.principal("bob", (scene.cube, ADMIN, SECRET))
    await admin.RevokeToken(token_id="01890a5d-ac96-774b-bcce-b302099a8057")
    await admin.DisablePrincipal(name="principals/bob")
    await admin.EndSession(name=scene.session)
    assert await asyncio.wait_for(frames.get(), 20)
    assert not watching.done()
    watching.cancel()


async def test_an_expired_token_ends_a_stream_that_it_opened(world: World) -> None:
    admin = world.admin
    scene = await build(admin, "c")
    await world.principal("ann", (scene.cube, READER, SECRET))
    issued = await admin.IssueToken(principal="principals/ann", ttl={"seconds": 2})
    caller = world.caller(issued.token)

    async def watch() -> None:
        async for _ in caller.WatchCube(name=scene.cube, start_revision=1):
            pass

    with pytest.raises(RpcError) as raised:
        await asyncio.wait_for(watch(), 20)
    assert (raised.value.code, raised.value.reason) == ("UNAUTHENTICATED", "TOKEN_EXPIRED")


async def _frames(admin: Mip, rpc: str, scene: Scene) -> list[Message]:
    """Returns the frames of a call that is not over by itself: a blob is larger than what flow control lets through."""
    if rpc != "ReadBlob":
        return frames_of(rpc, scene)
    piece, count = bytes(2**20), 32
    digest = f"sha256:{hashlib.sha256(piece * count).hexdigest()}"
    header = BlobHeader(parent=scene.cube, digest=digest, size=count * len(piece))
    data = [WriteBlobRequest(data=BlobData(offset=n * len(piece), data=piece)) for n in range(count)]
    await admin.upload("WriteBlob", [WriteBlobRequest(header=header), *data, WriteBlobRequest(finish=True)])
    return [ReadBlobRequest(parent=scene.cube, digest=digest)]
