"""Folders that earlier versions wrote: opened, brought up to date, and read as they were."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from memos_server.configs.data_folder import FORMAT_VERSION
from memos_server.graph_dbs.sqlite.schema import MIGRATIONS
from tests.conftest import World
from tests.support.folder_story import answers, digest_of

FOLDERS = Path(__file__).resolve().parents[1] / "data" / "folders"
VERSIONS = range(1, FORMAT_VERSION + 1)


def unpack(version: int, data: Path) -> Path:
    """Unpacks the folder that a version wrote."""
    with tarfile.open(FOLDERS / f"v{version}.tar.xz") as archive:
        archive.extractall(data, filter="data")
    data.chmod(0o700)
    return data


def told(version: int) -> dict[str, Any]:
    """Returns what the server that wrote a folder answered about it."""
    found: dict[str, Any] = json.loads((FOLDERS / f"v{version}.json").read_text(encoding="utf-8"))
    return found


def files_of(data: Path) -> dict[str, str]:
    """Returns path -> digest of everything in a folder."""
    return {
        str(path.relative_to(data)): digest_of(path.read_bytes()) if path.is_file() else "folder"
        for path in data.rglob("*")
    }


def test_every_version_of_the_format_has_a_folder_that_its_server_wrote() -> None:
    # A migration of the record is a new format: an older server must not open the folder.
    assert len(MIGRATIONS) == FORMAT_VERSION
    for version in VERSIONS:
        assert (FOLDERS / f"v{version}.tar.xz").is_file(), "run tools/make_folder_fixture.py"
        assert (FOLDERS / f"v{version}.tar.xz").stat().st_size < 100_000
        assert told(version)["cubes"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_folder_of_every_version_reads_as_it_did_then(version: int, tmp_path: Path) -> None:
    data = unpack(version, tmp_path / "data")
    token = (data / "admin.token").read_text()
    world = World(data)
    await world.start()
    said = await answers(world.admin)
    expected = told(version)
    assert said["cubes"].keys() == expected["cubes"].keys()
    for name, cube in expected["cubes"].items():
        assert said["cubes"][name] == cube, name
        assert cube["verify"][0] is True
    assert said == expected
    # The local administrator's token of then is good for a year, and made anew in its second half.
    now = (data / "admin.token").read_text()
    caller = world.caller(token.strip())
    assert now != token or (await caller.GetCube(name="cubes/notes")).cube.uid
    await world.stop()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_second_start_changes_nothing(version: int, tmp_path: Path) -> None:
    world = World(unpack(version, tmp_path / "data"))
    await world.start()
    said = await answers(world.admin)
    await world.stop()
    once = files_of(world.data)
    await world.start()
    await world.stop()
    assert files_of(world.data) == once
    await world.start()
    assert await answers(world.admin) == said
    await world.stop()
