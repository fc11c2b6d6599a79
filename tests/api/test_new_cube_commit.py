"""Who makes a cube administers it, and is shown its first commit as the log shows it."""

from __future__ import annotations

from memos_server._pb.mip.v1.access_pb2 import ROLE_CREATOR, ROLE_READER
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_INTERNAL, SENSITIVITY_SECRET
from tests.conftest import World
from tests.support.mip import Memory, Mip


async def test_the_maker_of_a_cube_is_shown_every_change_of_its_first_commit(world: World) -> None:
    maker = await world.principal("maker", ("server", ROLE_CREATOR, SENSITIVITY_INTERNAL))
    made = await maker.CreateCube(cube_id="c")
    assert made.commit.change_count == 1
    assert made.commit == (await maker.GetCommit(name="cubes/c/commits/1")).commit


async def test_the_maker_of_a_fork_is_shown_every_change_of_its_first_commit(world: World, mip: Mip) -> None:
    source = (await mip.CreateCube(cube_id="c")).cube.name
    secret = Memory(plaintext={"text": "secret"}, sensitivity=SENSITIVITY_SECRET)
    await mip.AddMemories(parent=source, memories=[Memory(plaintext={"text": "tea"}), secret])
    maker = await world.principal(
        "maker", ("server", ROLE_CREATOR, SENSITIVITY_INTERNAL), (source, ROLE_READER, SENSITIVITY_INTERNAL)
    )
    fork = await maker.ForkCube(name=source, cube_id="f", request_id="0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77")
    assert fork.commit.change_count == 2
    assert fork.commit == (await maker.GetCommit(name="cubes/f/commits/1")).commit
    again = await maker.ForkCube(name=source, cube_id="f", request_id="0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77")
    assert again.commit == fork.commit
