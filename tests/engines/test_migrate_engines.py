"""Migrations from an embedded folder to engines and back: all that a server holds, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.migrate import Report, migrate, undo
from memos_server.migrate_sides import target_settings
from tests.conftest import MakeWorld, World
from tests.support import engines
from tests.support.folder_story import fill
from tests.support.migrations import Silent, everything, run, settings_of, told_by
from tests.support.mip import text
from tools.engines import Neo4jEngine

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

Sections = dict[str, dict[str, Any]]
SEED = int(os.environ.get("MEMOS_TEST_SEED", "20261121"))
RECORD_ALONE = "neo4j+embedded+filesystem"


def written(tmp_path: Path, chosen: Sections) -> Path:
    """Writes sections as a settings file, which holds a password."""
    file = tmp_path / "engines.toml"
    lines = []
    for part, section in chosen.items():
        lines += [f"[{part}]", f"backend = {json.dumps(section['backend'])}", f"[{part}.config]"]
        # What JSON writes of a text, a number or a truth value is TOML too.
        lines += [f"{key} = {json.dumps(value)}" for key, value in section["config"].items()]
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return file


async def to_engines(source: Path, file: Path, backends: str = RECORD_ALONE, **more: Any) -> Report:
    """Migrates a folder to the engines that a settings file names, or goes on with it."""
    ours = settings_of(source)
    return await migrate(ours, target_settings(backends, file, None, ours), Silent(), **more)


async def back(source: Path, chosen: Sections, target: Path) -> Report:
    """Migrates a record in engines, whose servers are stopped, to a folder."""
    ours = settings_of(source, **chosen)
    return await migrate(ours, target_settings("sqlite+embedded", None, target, ours), Silent(), finish=True)


@pytest.mark.parametrize("backends", ["neo4j+weaviate+s3", RECORD_ALONE])
async def test_a_folder_moves_to_engines_and_back(backends: str, make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    await fill(world.admin)
    expected = await everything(world.admin)
    chosen = engines.settings(backends)
    file = written(tmp_path, chosen)
    # Beside the server first; then, when it is stopped, the rest.
    assert not (await to_engines(world.data, file, backends)).finished
    with pytest.raises(SetupError, match="is being filled by a migration from sqlite"):
        await World(tmp_path / "early", **chosen).start()
    await world.stop()
    report = await to_engines(world.data, file, backends, wait_index=True)
    assert (report.finished, report.index, report.keys) == (True, [], "shared")
    # The server goes on in the same folder, with other settings.
    with pytest.raises(SetupError, match="has moved to neo4j"):
        await world.start()
    assert await told_by(world.data, **chosen) == expected
    returned = await back(world.data, chosen, tmp_path / "back")
    assert (returned.finished, returned.keys) == (True, "copied")
    # The digests are over what is held, not over how: they are those of the way there.
    assert returned.tables == report.tables
    assert {name: cube["digest"] for name, cube in returned.cubes.items()} == {
        name: cube["digest"] for name, cube in report.cubes.items()
    }
    assert await told_by(tmp_path / "back") == expected
    with pytest.raises(SetupError, match="has moved to sqlite"):
        await World(world.data, **chosen).start()
    assert (await undo(settings_of(world.data, **chosen))).role == "moved"
    assert await told_by(world.data, **chosen) == expected


async def test_a_database_that_is_killed_while_it_is_filled_loses_and_doubles_nothing(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    engines.need("neo4j")
    engine = Neo4jEngine(tmp_path / "neo4j", quick=True)
    await asyncio.to_thread(engine.start)
    try:
        world = await make_world()
        await fill(world.admin)
        await world.admin.CreateCube(cube_id="many")
        for number in range(60):
            await world.admin.AddMemories(
                parent="cubes/many", memories=[text(f"{number} {turn}") for turn in range(40)]
            )
        expected = await everything(world.admin)
        await world.stop()
        chosen: Sections = {
            "record": {"backend": "neo4j", "config": engine.config()},
            "index": {"backend": "embedded", "config": {}},
            "blobs": {"backend": "filesystem", "config": {}},
        }
        file = written(tmp_path, chosen)
        moving = asyncio.create_task(to_engines(world.data, file))
        await asyncio.sleep(random.Random(SEED).uniform(1.0, 4.0))
        await asyncio.to_thread(engine.kill)
        await asyncio.to_thread(engine.start)
        try:
            report = await moving
        except MipError as error:
            # It was away for longer than a run waits; the next one goes on.
            if error.reason != "BACKEND_UNAVAILABLE":
                raise
            report = await to_engines(world.data, file)
        assert report.finished
        assert await told_by(world.data, **chosen) == expected
    finally:
        await asyncio.to_thread(engine.kill)


async def test_a_server_that_still_writes_to_engines_is_found_before_the_switch(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    chosen = engines.settings(RECORD_ALONE)
    busy = World(tmp_path / "engines", **chosen)
    await busy.start()
    await busy.admin.CreateCube(cube_id="busy")
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await busy.admin.AddMemories(parent="cubes/busy", memories=[text("one more")])

    writing = asyncio.create_task(write())
    try:
        with pytest.raises(SetupError, match="A server uses"):
            await back(tmp_path / "engines", chosen, tmp_path / "there")
        # From another machine its folder is not seen: what it writes shows it.
        with pytest.raises(SetupError) as found:
            await back(tmp_path / "elsewhere", chosen, tmp_path / "there")
        assert "server" in found.value.message + found.value.remedy
    finally:
        stop.set()
        await writing
    # Nothing was switched: the record serves on, also from a server that starts now.
    await busy.restart()
    assert (await busy.admin.VerifyCube(name="cubes/busy")).valid
    await busy.stop()
    assert (await back(tmp_path / "engines", chosen, tmp_path / "there")).finished


async def test_a_database_that_cannot_be_used_is_told_without_its_password(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    world = await make_world()
    await world.admin.CreateCube(cube_id="c")
    await world.stop()
    chosen = engines.settings(RECORD_ALONE)
    chosen["record"]["config"]["password"] = "hunter2"
    file = written(tmp_path, chosen)
    ended = await run("migrate", "--data", world.data, "--to", "neo4j+embedded", "--target-config", file)
    assert ended.returncode == 1
    assert "refuses the user" in ended.stderr
    assert "remedy:" in ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr
    assert not (world.data / "migration.json").exists()
