"""Files beside the record edited by hand: VerifyCube names blobs and entries of the index that are not the log's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from memos_server.configs.settings import Settings
from memos_server.doctor import examine
from memos_server.vec_dbs.base import IndexBatch, IndexContent, IndexVersion
from memos_server.vec_dbs.embedded.backend import EmbeddedIndex
from memos_server.vec_dbs.embedded.cube_index import CubeIndex
from tests.conftest import MakeWorld, World
from tests.integration.test_tampering import UPLOADED, digest_of, history

CUBE = "cubes/c"


@pytest.fixture
async def stopped(make_world: MakeWorld) -> World:
    """A stopped server with a rich cube."""
    world = await make_world()
    await history(world)
    assert (await world.admin.VerifyCube(name=CUBE)).valid
    await world.stop()
    return world


async def findings(world: World) -> set[tuple[str, str]]:
    """Starts the server and returns (kind, resource) of what it finds on the cube."""
    await world.start()
    found = (await world.admin.VerifyCube(name=CUBE)).findings
    await world.stop()
    return {(finding.kind, finding.resource) for finding in found}


def flipped(data: bytes) -> bytes:
    """Returns the bytes with one bit turned."""
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize(
    "edit",
    [
        lambda path: path.write_bytes(flipped(path.read_bytes())),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.unlink(),
        lambda path: (path.rename(path.with_suffix(".other")), path.symlink_to(path.with_suffix(".other"))),
    ],
    ids=["a bit", "shorter", "longer", "missing", "a link"],
)
async def test_an_edited_blob_is_named_on_the_memory_that_names_it(
    stopped: World, edit: Callable[[Path], object]
) -> None:
    paths = list((stopped.data / "blobs").rglob(digest_of(UPLOADED).removeprefix("sha256:")))
    assert len(paths) == 2, "the cube's own and its fork's"
    for path in paths:
        edit(path)
    assert await findings(stopped) == {("blob", f"{CUBE}/memories/h")}


async def indexed(world: World) -> tuple[EmbeddedIndex, CubeIndex, str]:
    """Opens the index of a stopped server; returns it, the cube's part of it and the cube's uid."""
    await world.start()
    uid = (await world.admin.GetCube(name=CUBE)).cube.uid
    await world.stop()
    index = EmbeddedIndex(str(world.data))
    await index.open()
    assert await index.indexed_revision(uid) > 0
    cube = index._slots[uid].cube
    assert cube is not None
    return index, cube, uid


def version_of(cube: CubeIndex, place: int, value: int, name: str) -> None:
    """Sets a value of the version at a place."""
    cube.versions.columns()[name].values[place] = value


STRANGER = "0192f7a0-0000-7000-8000-00000000beef"
EDITS: dict[str, Callable[[CubeIndex], None]] = {
    "the state of a version": lambda cube: version_of(cube, 2, 3, "state"),
    "the label of a version": lambda cube: version_of(cube, 2, 1, "sensitivity"),
    "the end of a past version": lambda cube: version_of(cube, 0, 1, "until"),
    "the beginning of a version": lambda cube: version_of(cube, 2, 4, "since"),
    "the content of a version": lambda cube: version_of(cube, 1, 0, "content"),
    "the memory of a version": lambda cube: version_of(cube, 1, 2, "item"),
    "no content": lambda cube: version_of(cube, 2, -1, "content"),
    "a vector": lambda cube: cube.vectors.put(np.array([2]), [np.array([0, 1, 0, 0], dtype=np.float32)]),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
async def test_an_edited_entry_of_the_index_is_named_and_made_anew(
    stopped: World, edit: Callable[[CubeIndex], None]
) -> None:
    index, cube, uid = await indexed(stopped)
    edit(cube)
    index._slots[uid].changes += 1
    await index.close()
    found = await findings(stopped)
    assert found, "the edit was not found"
    assert {kind for kind, _ in found} <= {"index", "content"}
    assert {resource for _, resource in found} <= {f"{CUBE}/memories/{id_}" for id_ in "abc"}
    if {kind for kind, _ in found} == {"index"}:
        settings = Settings(data=stopped.data, listen="127.0.0.1:0", **stopped.settings)
        checks = {check.name: check.status for check in await examine(settings, repair=True)}
        assert checks[CUBE] == "repaired"
        assert await findings(stopped) == set()


async def test_an_entry_that_the_log_does_not_have_is_named(stopped: World) -> None:
    index, cube, uid = await indexed(stopped)
    revision = cube.revision
    cube.revision -= 1
    planted = IndexContent(b"\x01" * 32, ["planted"])
    version = IndexVersion(STRANGER, revision, planted.key, 1, 1, 0.0, 0.0)
    await index.apply(uid, 4, IndexBatch(revision - 1, revision, [planted], [version]))
    await index.close()
    assert await findings(stopped) == {("index", CUBE)}
