"""What a review found besides: calls that go on without their caller, and masks."""

from __future__ import annotations

import asyncio
import threading

import pytest

from memos_server.graph_dbs.base import Kind, Reader
from tests.conftest import World
from tests.support.mip import Memory, Mip, Plaintext, text


@pytest.fixture
async def cube(mip: Mip) -> str:
    """The name of a fresh cube."""
    return (await mip.CreateCube(cube_id="c")).cube.name


async def test_a_field_of_plaintext_changes_alone(mip: Mip, cube: str) -> None:
    name = (await mip.AddMemories(parent=cube, memories=[text("tea")])).memories[0].name
    memory = Memory(name=name, plaintext=Plaintext(kind="fact"))
    changed = (await mip.UpdateMemory(memory=memory, update_mask={"paths": ["plaintext.kind"]})).memory
    assert (changed.plaintext.text, changed.plaintext.kind) == ("tea", "fact")


async def test_a_read_ends_when_its_caller_went_away(world: World, cube: str) -> None:
    store = world.server.mos.store
    began, ended = threading.Event(), threading.Event()

    async def scan(txn: Reader) -> None:
        try:
            row = await txn.cube("c")
            assert row is not None
            began.set()
            for _ in range(1_000_000):
                await txn.list_versions(row.key, Kind.MEMORY, 0, 1000)
        finally:
            ended.set()

    reading = asyncio.create_task(store.read(scan))
    await asyncio.get_running_loop().run_in_executor(None, began.wait)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await asyncio.get_running_loop().run_in_executor(None, ended.wait, 2.0)
