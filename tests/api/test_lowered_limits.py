"""Limits that the settings lower: what GetCapabilities declares holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.conftest import MakeWorld, World
from tests.support.mip import METHODS, Mip, Relation, RpcError, Session, text

CUBE = "cubes/c0"
NAME = f"{CUBE}/memories/m0"
REQUEST_ID = "0b1f3c3a-6a0e-4c53-9c39-1d3d0a5f7c12"
LISTS: Mapping[str, tuple[dict[str, Any], str]] = {
    "ListCubes": ({}, "cubes"),
    "ListCommits": ({"parent": CUBE}, "commits"),
    "ListMemories": ({"parent": CUBE}, "memories"),
    "ListMemoryRevisions": ({"name": NAME}, "memories"),
    "ListRelations": ({"parent": CUBE}, "relations"),
    "ListSessions": ({"parent": CUBE}, "sessions"),
    "ListJobs": ({"parent": CUBE}, "jobs"),
    "ListPrincipals": ({}, "principals"),
    "ListGrants": ({"resource": CUBE}, "grants"),
    "ListAuditEvents": ({"resource": "server"}, "events"),
}


@pytest.fixture
async def low(make_world: MakeWorld) -> World:
    """A server that permits little, with four of everything."""
    world = await make_world(
        limits={"max_page_size": 3, "max_batch_memories": 4, "max_search_cubes": 2, "max_top_k": 3}
    )
    mip = world.admin
    for number in range(4):
        await mip.CreateCube(cube_id=f"c{number}")
    names = [f"{CUBE}/memories/m{number}" for number in range(4)]
    await mip.AddMemories(parent=CUBE, memories=[text("tea", name=name) for name in names])
    purged = await mip.AddMemories(parent=CUBE, memories=[text("gone") for _ in range(4)])
    ends = [Relation(type=f"T{number}", source=names[0], target=names[1]) for number in range(4)]
    await mip.CreateRelations(parent=CUBE, relations=ends)
    for number in range(4):
        await mip.UpdateMemory(memory=text(f"tea {number}", name=NAME))
        await mip.CreateSession(parent=CUBE, session=Session())
        await mip.PurgeMemories(parent=CUBE, names=[purged.memories[number].name], reason="asked")
        await world.principal(f"p{number}", (CUBE, 1, 4))
    return world


def test_every_list_but_that_of_changes_is_tried() -> None:
    paged = {name for name, method in METHODS.items() if "page_size" in method.input_type.fields_by_name}
    assert paged == {*LISTS, "ListCommitChanges"}


async def test_no_page_is_larger_than_declared_and_a_commit_s_changes_have_a_bound_of_their_own(low: World) -> None:
    mip = low.admin
    assert (await mip.GetCapabilities()).limits.max_page_size == 3
    for rpc, (fields, items) in LISTS.items():
        for asked in (0, 1000):
            page = await getattr(mip, rpc)(**fields, page_size=asked)
            assert (len(getattr(page, items)), bool(page.next_page_token)) == (3, True), rpc
        assert len(getattr(await getattr(mip, rpc)(**fields, page_size=2), items)) == 2
    assert len((await mip.ListCommitChanges(parent=f"{CUBE}/commits/2")).changes) == 4


async def test_a_batch_above_the_declared_size_is_refused_and_adds_nothing(low: World) -> None:
    mip = low.admin
    before = (await mip.GetCube(name=CUBE)).cube.revision
    limit = (await mip.GetCapabilities()).limits.max_batch_memories
    with pytest.raises(RpcError) as raised:
        await mip.AddMemories(parent=CUBE, memories=[text("x") for _ in range(limit + 1)])
    assert (raised.value.code, raised.value.reason) == ("INVALID_ARGUMENT", "TOO_MANY_ITEMS")
    assert raised.value.fields == ["memories"]
    assert (await mip.GetCube(name=CUBE)).cube.revision == before


async def test_a_batch_that_was_permitted_once_is_still_answered_when_it_is_repeated(make_world: MakeWorld) -> None:
    world = await make_world()
    await world.admin.CreateCube(cube_id="c0")
    call = {"parent": CUBE, "memories": [text("x") for _ in range(5)], "request_id": REQUEST_ID}
    first = await world.admin.AddMemories(**call)
    world.settings["limits"] = {"max_batch_memories": 4}
    await world.restart()
    assert (await world.admin.AddMemories(**call)).commit == first.commit


async def test_a_search_of_more_cubes_than_declared_is_refused(low: World) -> None:
    mip: Mip = low.admin
    limit = (await mip.GetCapabilities()).limits.max_search_cubes
    cubes = [f"cubes/c{number}" for number in range(limit + 1)]
    with pytest.raises(RpcError) as raised:
        await mip.SearchMemories(cubes=cubes, query="tea")
    assert (raised.value.reason, raised.value.fields) == ("TOO_MANY_ITEMS", ["cubes"])
    assert len((await mip.SearchMemories(cubes=cubes[:limit], query="tea", top_k=1000)).hits) == 3
