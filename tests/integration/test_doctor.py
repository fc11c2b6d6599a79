"""The doctor names what is damaged, makes anew what is derived, and leaves a folder in use to its server."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

from memos_server.configs.settings import Settings
from memos_server.doctor import Check, examine
from memos_server.vec_dbs.base import IndexBatch
from memos_server.vec_dbs.embedded.backend import EmbeddedIndex
from tests.conftest import MakeWorld, World
from tests.support.mip import text


async def stopped(make_world: MakeWorld) -> tuple[World, str]:
    """Returns a stopped server whose folder holds a cube `c` of three memories at revision 2, and the cube's uid."""
    world = await make_world()
    cube = (await world.admin.CreateCube(cube_id="c")).cube
    memories = [text("a lighthouse"), text("a harbour"), text("a reef")]
    await world.admin.AddMemories(parent=cube.name, memories=memories)
    assert (await world.admin.VerifyCube(name=cube.name)).valid
    await world.stop()
    return world, cube.uid


async def doctor(world: World, *, repair: bool = False) -> dict[str, Check]:
    """Returns the checks by name."""
    settings = Settings(data=world.data, listen="127.0.0.1:0", **world.settings)
    return {check.name: check for check in await examine(settings, repair=repair)}


async def finds_the_harbour(world: World) -> bool:
    """Starts the server and returns whether a search finds what it should."""
    await world.start()
    found = await world.admin.SearchMemories(cubes=["cubes/c"], query="harbour")
    return [hit.memory.plaintext.text for hit in found.hits] == ["a harbour"]


async def test_a_healthy_folder_is_all_ok(make_world: MakeWorld) -> None:
    world, _ = await stopped(make_world)
    checks = await doctor(world)
    assert {name: check.status for name, check in checks.items()} == {
        "model": "warn",
        "folder": "ok",
        "record": "ok",
        "cubes/c": "ok",
        "cubes": "ok",
    }
    assert checks["cubes/c"].message == "revision 2, chain, content, blobs and index agree"
    assert checks["cubes"].message == "1 cubes examined"


async def test_a_damaged_index_file_is_made_anew_and_said(make_world: MakeWorld) -> None:
    world, _ = await stopped(make_world)
    (path,) = (world.data / "index").rglob("data-*.bin")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    check = (await doctor(world, repair=True))["cubes/c"]
    assert check == Check(
        "cubes/c", "repaired", "the search index was missing or damaged and was made anew from the log"
    )
    assert (await doctor(world))["cubes/c"].status == "ok"
    assert await finds_the_harbour(world)


async def test_an_index_that_disagrees_with_the_log_is_repaired_when_asked(make_world: MakeWorld) -> None:
    world, uid = await stopped(make_world)
    index = EmbeddedIndex(str(world.data))
    await index.open()
    await index.drop(uid)
    # Sound files that claim to have seen all of the log, and hold nothing.
    await index.apply(uid, 0, IndexBatch(0, 2, [], [], []))
    await index.close()
    check = (await doctor(world))["cubes/c"]
    assert (check.status, check.remedy) == ("fail", "memos doctor --repair")
    assert check.message.startswith("index cubes/c/memories/")
    assert check.message.endswith(": the index lacks the memory")
    check = (await doctor(world, repair=True))["cubes/c"]
    assert check == Check("cubes/c", "repaired", "the search index was made anew from the log")
    assert (await doctor(world))["cubes/c"].status == "ok"
    assert await finds_the_harbour(world)


async def test_a_damaged_memory_is_named(make_world: MakeWorld) -> None:
    world, _ = await stopped(make_world)
    with sqlite3.connect(world.data / "record.sqlite") as record:
        changed = record.execute(
            "UPDATE contents SET payload = CAST(replace(payload, 'harbour', 'HARBOUR') AS BLOB)"
            " WHERE instr(payload, CAST('harbour' AS BLOB))"
        ).rowcount
    record.close()
    assert changed == 1
    check = (await doctor(world, repair=True))["cubes/c"]
    assert check.status == "fail"
    assert check.message.startswith("content cubes/c/memories/")
    assert check.remedy == "Restore a backup into a new folder: memos restore BACKUP --data DIR."


async def test_rows_that_belong_to_nothing_are_named_and_the_cubes_verified_all_the_same(
    make_world: MakeWorld,
) -> None:
    world, _ = await stopped(make_world)
    with sqlite3.connect(world.data / "record.sqlite") as record:
        record.execute("INSERT INTO blob_proofs VALUES (1, 'sha256:0', 'principals/ann')")
        record.execute("INSERT INTO content_blobs VALUES (1, 'sha256:0', 4417)")
        record.execute("UPDATE contents SET payload = CAST(replace(payload, 'reef', 'REEF') AS BLOB)")
    record.close()
    settings = Settings(data=world.data, listen="127.0.0.1:0", **world.settings)
    checks = await examine(settings)
    failed = [(check.name, check.message, check.remedy) for check in checks if check.status == "fail"]
    restore = "Restore a backup into a new folder: memos restore BACKUP --data DIR."
    assert failed[:2] == [
        ("record", "rows that belong to nothing: 1 named blobs of no content", restore),
        ("record", "rows that belong to nothing: 1 proofs of no blob", restore),
    ]
    assert {name for name, _, _ in failed[2:]} == {"cubes/c"}
    assert any(message.startswith("content cubes/c/memories/") for _, message, _ in failed)
    assert checks[-1] == Check("cubes", "ok", "1 cubes examined")


async def test_a_record_that_is_no_database_is_named(make_world: MakeWorld) -> None:
    world, _ = await stopped(make_world)
    (world.data / "record.sqlite").write_bytes(b"not a database" * 1000)
    check = (await doctor(world))["record"]
    assert check.status == "fail"
    assert "record.sqlite is damaged" in check.message


async def test_a_folder_in_use_is_left_to_its_server(make_world: MakeWorld) -> None:
    world = await make_world()
    await world.admin.CreateCube(cube_id="c")
    checks = await doctor(world, repair=True)
    assert {name: check.status for name, check in checks.items()} == {
        "model": "warn",
        "folder": "ok",
        "record": "ok",
        "cubes/c": "ok",
        "cubes": "ok",
    }
    assert checks["folder"].message.startswith("a server (pid ")
    assert checks["record"].message.startswith("in use; the server verified its cubes")
    assert checks["cubes/c"].message == "revision 1, chain, content, blobs and index agree"
    (world.data / "server.json").unlink()
    check = (await doctor(world, repair=True))["folder"]
    assert check.status == "fail"
    assert check.remedy == "Stop that server, or name another folder with --data."
    assert (await world.admin.VerifyCube(name="cubes/c")).valid


async def test_a_folder_that_is_not_there_is_not_made(make_world: MakeWorld, tmp_path: Path) -> None:
    del make_world
    checks = await examine(Settings(data=tmp_path / "none", embedder={"backend": "none"}))
    assert [check.name for check in checks] == ["model", "folder"]
    assert checks[1].status == "warn"
    assert not (tmp_path / "none").exists()


async def test_the_command_prints_the_checks_and_ends_with_1_when_one_fails(make_world: MakeWorld) -> None:
    world, _ = await stopped(make_world)

    def run() -> tuple[int, list[dict[str, str]]]:
        memos = Path(sys.executable).with_name("memos")
        command = [str(memos), "doctor", "--data", str(world.data), "--json"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={"MEMOS_EMBEDDER__BACKEND": "none"}
        )
        return done.returncode, json.loads(done.stdout)

    status, checks = run()
    assert status == 0, checks
    (world.data / "record.sqlite").write_bytes(b"not a database" * 1000)
    status, checks = run()
    assert status == 1
    assert [check["name"] for check in checks if check["status"] == "fail"] == ["record"]


async def test_a_running_server_is_asked_what_does_not_work(make_world: MakeWorld) -> None:
    world = await make_world(health={"interval_s": 0.05})
    await asyncio.sleep(0.2)
    assert "blobs" not in await doctor(world)
    (world.data / "blobs").rename(world.data / "away")
    await asyncio.sleep(0.5)
    assert (await doctor(world))["blobs"] == Check(
        "blobs",
        "fail",
        "the running server says that it does not work",
        "`memos top` says what is wrong with it, and so does its log.",
    )
    (world.data / "away").rename(world.data / "blobs")


async def test_an_examination_serves_no_metrics(make_world: MakeWorld) -> None:
    world, _ = await stopped(make_world)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        world.settings["metrics"] = {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}
        assert (await doctor(world))["folder"].status == "ok"
