"""A caller may fail as often as it likes: calls that ended with an error leave no place on the connection taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.support.mip import Mip, RpcError, text

CALLS = 300
"""More than the 256 calls that a connection carries at a time."""

Call = Callable[[Mip], Awaitable[object]]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda mip: mip.GetMemory(name="cubes/c/memories/none"), "MEMORY_NOT_FOUND"),
        (lambda mip: mip.AddMemories(parent="cubes/c", memories=[text("a")], expected_revision=9), "REVISION_MISMATCH"),
        (lambda mip: mip.AddMemories(parent="cubes/c"), "FIELD_REQUIRED"),
        (lambda mip: mip.CreateCube(cube_id="c"), "ALREADY_EXISTS"),
        (lambda mip: mip.SearchMemories(cubes=["cubes/c"], as_of_revision=9), "REVISION_NOT_FOUND"),
    ],
    ids=["read", "write", "invalid", "twice", "search"],
)
async def test_more_failed_calls_than_a_connection_carries_leave_it_usable(call: Call, reason: str, mip: Mip) -> None:
    await mip.CreateCube(cube_id="c")
    for _ in range(CALLS):
        with pytest.raises(RpcError) as raised:
            await call(mip)
        assert raised.value.reason == reason
    assert (await mip.GetCube(name="cubes/c")).cube.revision == 1
