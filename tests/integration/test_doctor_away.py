"""Engines that do not answer: the doctor says which, examines the rest, and takes nothing for lost."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings
from memos_server.doctor import Check, examine
from memos_server.errors import MipError
from memos_server.index_upkeep import cubes_of, opened, rebuild, status
from tests.conftest import MakeWorld, World
from tests.support.mip import text
from tests.support.ports import free_port

DATA = b"bytes of a document"
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
SECRET = "hush-hush-hush"


async def filled(make_world: MakeWorld) -> World:
    """Returns a running server with a cube `c` of a memory and a blob."""
    world = await make_world()
    cube = (await world.admin.CreateCube(cube_id="c")).cube
    await world.admin.AddMemories(parent=cube.name, memories=[text("a harbour")])
    frames = [
        WriteBlobRequest(header=BlobHeader(parent=cube.name, digest=DIGEST, size=len(DATA))),
        WriteBlobRequest(data=BlobData(data=DATA)),
        WriteBlobRequest(finish=True),
    ]
    await world.admin.upload("WriteBlob", frames)
    assert (await world.admin.VerifyCube(name=cube.name)).valid
    return world


def s3_away() -> dict[str, Any]:
    config = {"endpoint": f"http://127.0.0.1:{free_port()}", "bucket": "memos", "access_key": "a", "secret_key": SECRET}
    return {"blobs": {"backend": "s3", "config": config}}


async def doctor(world: World, *, repair: bool = False, **changes: Any) -> dict[str, Check]:
    settings = Settings(data=world.data, listen="127.0.0.1:0", **{**world.settings, **changes})
    return {check.name: check for check in await examine(settings, repair=repair)}


async def test_blobs_that_are_away_keep_the_rest_from_nothing(make_world: MakeWorld) -> None:
    world = await filled(make_world)
    await world.stop()
    checks = await doctor(world, repair=True, **s3_away())
    assert checks["blobs"] == Check(
        "blobs",
        "fail",
        "s3: the blob store (bucket memos) cannot be reached; look whether it runs and whether the network lets the"
        " server through",
        "Look whether s3 runs and can be reached from here, and at its log; nothing was changed.",
    )
    assert checks["record"].status == "ok"
    assert checks["cubes/c"] == Check(
        "cubes/c",
        "warn",
        "revision 2, not compared: blobs (s3) cannot be asked",
        "Run `memos doctor` again when it works.",
    )
    assert SECRET not in str(checks)
    assert (await doctor(world))["cubes/c"].status == "ok"


async def test_what_is_wrong_beside_an_engine_that_is_away_is_named_all_the_same(make_world: MakeWorld) -> None:
    world = await filled(make_world)
    await world.stop()
    for path in (world.data / "index").rglob("data-*.bin"):
        path.write_bytes(b"not an index")
    checks = await doctor(world, **s3_away())
    assert checks["cubes/c"].status == "warn"
    assert checks["blobs"].status == "fail"
    assert (await doctor(world))["cubes/c"].status == "ok"


async def test_an_index_in_the_folder_belongs_to_its_server(make_world: MakeWorld) -> None:
    world = await filled(make_world)
    settings = Settings(data=world.data, listen="127.0.0.1:0", **world.settings)
    with pytest.raises(SetupError, match="uses the data folder"):
        async with opened(settings):
            pass
    await world.stop()
    async with opened(settings) as upkeep:
        assert await status(upkeep, []) == [("cubes/c", 2, 2, "")]
        uid = (await cubes_of(upkeep, ["cubes/c"]))[0].uid
        await upkeep.index.drop(uid)
        assert await status(upkeep, ["cubes/c"]) == [("cubes/c", 2, 0, "")]
        assert await rebuild(upkeep, ["cubes/c"]) == [("cubes/c", 2, 2, "")]
        with pytest.raises(MipError, match="CUBE_NOT_FOUND"):
            await rebuild(upkeep, ["cubes/nowhere"])
    await world.start()
    found = await world.admin.SearchMemories(cubes=["cubes/c"], query="harbour")
    assert [hit.memory.plaintext.text for hit in found.hits] == ["a harbour"]


async def test_a_folder_that_is_not_there_has_no_index(make_world: MakeWorld) -> None:
    world = await make_world()
    with pytest.raises(SetupError, match="does not exist"):
        async with opened(Settings(data=world.data / "nowhere")):
            pass
