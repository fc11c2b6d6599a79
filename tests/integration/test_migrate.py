"""Migrations between two records of the same sort: all that a server holds moves, while it writes, and is compared.

What goes wrong on the way is in test_migrate_faults.py, what engines add in tests/engines/test_migrate_engines.py.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from memos_server.configs.errors import SetupError
from memos_server.migrate import Report, migrate, plan
from memos_server.migrate_sides import target_settings
from tests.conftest import MakeWorld, World
from tests.support.folder_story import WEIGHTS, fill, upload
from tests.support.folders import VERSIONS, told, unpack
from tests.support.migrations import Silent, everything, moved, run, settings_of, told_by
from tests.support.mip import Grant, Mip, RpcError, text

PIN = "the PIN of the green card is 4417"
FRESH_ID = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c99"


async def test_all_that_a_server_holds_moves_and_is_answered_as_before(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    await fill(world.admin)
    token = (await world.admin.IssueToken(principal="principals/reader")).token
    expected = await everything(world.admin)
    await world.stop()
    report = await moved(world.data, tmp_path / "there", wait_index=True)
    assert (report.finished, report.behind, report.index, report.keys) == (True, 0, [], "copied")
    assert {name: cube["revision"] for name, cube in report.cubes.items()} == {
        name: cube["verify"][1] for name, cube in expected["cubes"].items()
    }
    assert report.blobs_read == 2
    assert report.tables["audit_events"]["rows"] == len(expected["audit"])
    assert await told_by(tmp_path / "there") == expected
    # Tokens that were issued before open the new record.
    there = World(tmp_path / "there")
    await there.start()
    assert (await there.caller(token).GetCube(name="cubes/notes")).cube.display_name == "Notes of Ada"
    await there.stop()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_folder_of_any_version_moves(version: int, tmp_path: Path) -> None:
    data = unpack(version, tmp_path / "data")
    report = await moved(data, tmp_path / "there")
    assert report.finished
    found = await told_by(tmp_path / "there", more=False)
    assert found == told(version)


async def test_a_request_that_was_answered_before_the_move_is_answered_alike_after_it(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    world = await make_world()
    admin = world.admin
    await admin.CreateCube(cube_id="other")
    await admin.CreateCube(cube_id="notes")
    request = {"parent": "cubes/notes", "memories": [text("tea")], "request_id": FRESH_ID}
    first = await admin.AddMemories(**request)
    await world.stop()
    await moved(world.data, tmp_path / "there")
    there = World(tmp_path / "there")
    await there.start()
    assert await there.admin.AddMemories(**request) == first
    with pytest.raises(RpcError) as reused:
        await there.admin.AddMemories(**{**request, "memories": [text("coffee")]})
    assert reused.value.reason == "REQUEST_ID_REUSED"
    assert (await there.admin.GetCube(name="cubes/notes")).cube.revision == first.commit.revision
    await there.stop()


async def test_it_copies_while_the_server_writes_and_the_last_pass_brings_the_rest(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    world = await make_world()
    await fill(world.admin)
    stop = asyncio.Event()

    async def write(number: int) -> int:
        mip, count = world.admin, 0
        cube = f"cubes/busy{number}"
        await mip.CreateCube(cube_id=f"busy{number}")
        while not stop.is_set():
            added = await mip.AddMemories(parent=cube, memories=[text(f"{number} {count}"), text("beside")])
            if count % 5 == 1:
                await mip.PurgeMemories(parent=cube, names=[added.memories[1].name], reason="a test")
            if count % 7 == 1:
                await upload(mip, cube, WEIGHTS[: 64 + count])
            if count % 11 == 1:
                head = (await mip.GetCube(name=cube)).cube.revision
                await mip.RollbackCube(name=cube, to_revision=head - 2)
            count += 1
        return count

    writers = [asyncio.create_task(write(number)) for number in range(3)]
    await asyncio.sleep(0.5)
    first = await moved(world.data, tmp_path / "there")
    second = await moved(world.data, tmp_path / "there")
    assert not first.finished
    assert not second.finished
    assert sum(copied.commits for copied in first.passes) > 40
    await asyncio.sleep(0.3)
    stop.set()
    assert min(await asyncio.gather(*writers)) > 10
    expected = await everything(world.admin)
    await world.stop()
    last = await moved(world.data, tmp_path / "there")
    assert last.finished
    # What was copied beside the server was not copied again.
    assert 0 < sum(copied.commits for copied in last.passes) < sum(cube["revision"] for cube in last.cubes.values())
    assert await told_by(tmp_path / "there") == expected


async def test_what_is_purged_after_it_was_copied_leaves_the_target_too(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    admin, cube = world.admin, "cubes/cards"
    await fill(admin)
    await admin.CreateCube(cube_id="cards")
    secret = PIN.encode() * 20
    digest = await upload(admin, cube, secret)
    adapter = {"base_fingerprint": "b", "method": "lora", "blobs": [{"digest": digest, "size": len(secret)}]}
    await admin.AddMemories(parent=cube, memories=[text(PIN, name=f"{cube}/memories/pin"), text("tea")])
    await admin.AddMemories(parent=cube, memories=[{"name": f"{cube}/memories/w", "parametric": adapter}])
    await admin.CreateCube(cube_id="leaving", cube={"display_name": PIN})
    there = tmp_path / "there"
    assert not (await moved(world.data, there)).finished
    assert PIN.encode() in bytes_of(there)
    await admin.PurgeMemories(parent=cube, names=[f"{cube}/memories/pin", f"{cube}/memories/w"], reason="PINs")
    await admin.PurgeCube(name="cubes/leaving", reason="PINs")
    expected = await everything(admin)
    await world.stop()
    assert (await moved(world.data, there)).finished
    assert PIN.encode() not in bytes_of(there)
    assert await told_by(there) == expected


async def test_what_changes_beside_the_logs_between_passes_is_made_equal(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    admin = world.admin
    await fill(admin)
    for cube in ("a", "b"):
        await admin.CreateCube(cube_id=cube)
    for id_ in ("one", "two"):
        await admin.CreatePrincipal(principal_id=id_)
    await give(admin, "one", "cubes/a", 1)
    await give(admin, "two", "cubes/a", 1)
    await give(admin, "one", "cubes/b", 1)
    token = await admin.IssueToken(principal="principals/one")
    await moved(world.data, tmp_path / "there")
    await admin.DeleteGrant(principal="principals/one", resource="cubes/a")
    await give(admin, "two", "cubes/a", 2)
    await give(admin, "one", "cubes/a", 3)
    await admin.RevokeToken(token_id=token.token_id)
    await admin.DisablePrincipal(name="principals/two")
    await admin.CreatePrincipal(principal_id="three")
    expected = await everything(admin)
    await world.stop()
    assert (await moved(world.data, tmp_path / "there")).finished
    assert await told_by(tmp_path / "there") == expected
    there = World(tmp_path / "there")
    await there.start()
    with pytest.raises(RpcError) as refused:
        await there.caller(token.token).ListCubes()
    assert refused.value.reason == "TOKEN_REVOKED"
    listed = (await there.admin.ListGrants(resource="cubes/a")).grants
    await there.stop()
    assert [(grant.principal, grant.role) for grant in listed[1:]] == [("principals/two", 2), ("principals/one", 3)]


async def give(mip: Mip, principal: str, resource: str, role: int) -> None:
    """Sets a grant."""
    grant = Grant(principal=f"principals/{principal}", resource=resource, role=role, max_sensitivity=1)
    await mip.SetGrant(grant=grant)


async def test_a_dry_run_tells_what_there_is_and_makes_nothing(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    await fill(world.admin)
    ours = settings_of(world.data)
    theirs = target_settings("sqlite+embedded", None, tmp_path / "there", ours)
    before = sorted(path.name for path in world.data.iterdir())
    found = await plan(ours, theirs, Silent())
    assert (found.cubes, found.commits, found.left, found.running) == (5, 25, 25, True)
    assert (found.blobs, found.blob_bytes) == (2, len(WEIGHTS) + 512)
    assert found.changes == 46
    assert found.record_bytes > 0
    assert found.rows["requests"] == 1
    assert not (tmp_path / "there").exists()
    assert sorted(path.name for path in world.data.iterdir()) == before
    await moved(world.data, tmp_path / "there")
    found = await plan(ours, theirs, Silent())
    assert (found.left, found.continued) == (0, True)


async def test_the_command_tells_in_words_and_in_json_what_it_did(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    await fill(world.admin)
    there = tmp_path / "there"
    arguments = ["migrate", "--data", world.data, "--to", "sqlite+embedded", "--target-data", there]
    dry = await run(*arguments, "--dry-run")
    assert (dry.returncode, "25 commits and 46 changes" in dry.stdout) == (0, True), dry.stderr
    online = await run(*arguments)
    assert online.returncode == 0, online.stderr
    assert "copied 25 commits and 2 blobs" in online.stdout
    assert "not finished: the source was 0 commits ahead" in online.stdout
    assert "--finish" in online.stderr
    too_early = await run(*arguments, "--finish")
    assert too_early.returncode == 1
    assert "Stop that server" in too_early.stderr
    await world.stop()
    finished = await run(*arguments, "--finish", "--wait-index", "--json")
    assert finished.returncode == 0, finished.stderr
    told_ = json.loads(finished.stdout)
    assert told_["finished"] is True
    assert told_["index"] == []
    assert told_["cubes"]["cubes/notes"]["revision"] == 15
    assert len(told_["cubes"]["cubes/notes"]["digest"]) == 64
    old = await run("serve", "--data", world.data, "--listen", "127.0.0.1:0")
    assert old.returncode == 1
    assert f"has moved to sqlite ({there})" in old.stderr
    assert "memos migrate --undo" in old.stderr
    assert (await run("doctor", "--data", there)).returncode == 0


async def test_the_mark_of_a_record_that_moved_can_be_taken_away(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    await fill(world.admin)
    expected = await everything(world.admin)
    await world.stop()
    await moved(world.data, tmp_path / "there")
    with pytest.raises(SetupError, match="has moved to"):
        await world.start()
    with pytest.raises(SetupError, match=r"has moved to .* already"):
        await moved(world.data, tmp_path / "elsewhere")
    undone = await run("migrate", "--undo", "--data", world.data)
    assert undone.returncode == 0, undone.stderr
    assert "starts on this record again" in undone.stdout
    assert await told_by(world.data) == expected
    again = await run("migrate", "--undo", "--data", world.data)
    assert (again.returncode, "has not been migrated" in again.stderr) == (1, True)
    # What it went to is a record of its own now, which nothing is copied into.
    with pytest.raises(SetupError, match="not empty and is not this migration's"):
        await moved(world.data, tmp_path / "there")


async def test_a_record_that_came_can_go_on_and_go_back(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    await fill(world.admin)
    await world.stop()
    await moved(world.data, tmp_path / "there")
    there = World(tmp_path / "there")
    await there.start()
    await there.admin.AddMemories(parent="cubes/models", memories=[text("written there")])
    expected = await everything(there.admin)
    await there.stop()
    await moved(tmp_path / "there", tmp_path / "back")
    assert await told_by(tmp_path / "back") == expected


def test_both_sides_of_the_settings_must_agree(tmp_path: Path) -> None:
    ours = settings_of(tmp_path / "data")
    file = tmp_path / "engines.toml"
    file.write_text('[record]\nbackend = "neo4j"\nconfig = { uri = "bolt://db:7687", user = "neo4j" }\n')
    theirs = target_settings("neo4j+weaviate+s3", file, None, ours)
    assert [getattr(theirs, part).backend for part in ("record", "index", "blobs")] == ["neo4j", "weaviate", "s3"]
    # The server goes on in its folder, with its keys.
    assert theirs.data == ours.data
    assert target_settings("neo4j+weaviate", file, tmp_path / "new", ours).blobs.backend == "filesystem"
    for to, config, data, message in (
        ("neo4j", file, None, "names no target"),
        ("neo4j++s3", file, None, "names no target"),
        ("other+weaviate", file, None, r"chooses other for \[record\]"),
        ("neo4j+weaviate", None, None, "How to reach neo4j is not said"),
        ("neo4j+weaviate", tmp_path / "absent.toml", None, "does not exist"),
        ("sqlite+embedded", None, None, "data folder is not named"),
        ("sqlite+embedded", None, ours.data, "same record"),
    ):
        with pytest.raises(SetupError, match=message):
            target_settings(to, config, data, ours)


def test_the_environment_of_the_source_is_not_the_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMOS_INDEX__BACKEND", "other")
    monkeypatch.setenv("MEMOS_RECORD__CONFIG", '{"readers": 9}')
    theirs = target_settings("sqlite+embedded", None, tmp_path / "there", settings_of(tmp_path / "data"))
    assert (theirs.index.backend, theirs.record.config) == ("embedded", {})


def bytes_of(folder: Path) -> bytes:
    """Returns every byte of every file below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


async def test_a_report_says_nothing_of_secrets(tmp_path: Path) -> None:
    ours = settings_of(tmp_path / "data")
    record: dict[str, Any] = {"uri": "bolt://neo4j:hunter2@db:7687", "user": "neo4j", "password": "hunter2"}
    theirs = settings_of(tmp_path / "there", record={"backend": "neo4j", "config": record})
    from memos_server.migrate_sides import described

    assert described(theirs).startswith("neo4j (db:7687), blobs in filesystem")
    assert "hunter2" not in described(theirs)
    with pytest.raises(SetupError) as failed:
        await migrate(ours, theirs, Silent())
    assert "hunter2" not in str(failed.value)
    assert isinstance(Report("a", "b").as_json(), dict)
