"""Backups: made while the server writes, whole, without purged bytes; what stands in the way is said."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memos_server import backup as backup_module
from memos_server.backup import make
from memos_server.backup_manifest import Manifest
from memos_server.backup_restore import restore
from memos_server.configs import data_folder
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings
from tests.conftest import World
from tests.e2e.process import ServerProcess
from tests.support.folder_story import WEIGHTS, answers, digest_of, upload, vector
from tests.support.folders import VERSIONS, files_of, told, unpack
from tests.support.mip import Memory, Mip, RpcError, text

BATCH = 5
PIN = "the PIN of the green card is 4417"


def settings_of(data: Path, **more: Any) -> Settings:
    """Returns the settings of a folder."""
    return Settings(data=data, **more)


def bytes_of(folder: Path) -> bytes:
    """Returns every byte of every file below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the server's package in a folder."""
    command = [sys.executable, "-m", "memos_server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def left_in(folder: Path) -> list[str]:
    """Returns what lies in a folder, hidden things too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_restored_folder_answers_as_the_original_did(version: int, tmp_path: Path) -> None:
    data = unpack(version, tmp_path / "data")
    (data / "memos.toml").write_text("[log]\nlevel = 'error'\n")
    before = files_of(data)
    made = make(settings_of(data), tmp_path / "backup")
    assert files_of(data) == before
    expected = told(version)
    heads = {f"cubes/{cube.id}": [cube.revision, cube.digest.hex()] for cube in made.cubes}
    assert heads == {name: cube["verify"][1:3] for name, cube in expected["cubes"].items()}
    for path in [tmp_path / "backup", *(tmp_path / "backup").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o600 if path.is_file() else 0o700), path
    restored = restore(tmp_path / "backup", tmp_path / "restored")
    assert restored == made
    assert (tmp_path / "restored" / "memos.toml").read_text() == "[log]\nlevel = 'error'\n"
    assert not (tmp_path / "restored" / "admin.token").exists()
    world = World(tmp_path / "restored")
    await world.start()
    assert await answers(world.admin) == expected
    # It is the server that it was: tokens of the original open it.
    issued = (data / "admin.token").read_text().strip()
    assert (await world.caller(issued).GetCube(name="cubes/notes")).cube.revision == heads["cubes/notes"][0]
    await world.stop()


async def test_a_copy_with_new_keys_is_opened_by_no_token_of_the_original(tmp_path: Path) -> None:
    data = unpack(VERSIONS[-1], tmp_path / "data")
    make(settings_of(data), tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "copy", new_keys=True)
    world = World(tmp_path / "copy")
    await world.start()
    with pytest.raises(RpcError) as raised:
        await world.caller((data / "admin.token").read_text().strip()).GetCube(name="cubes/notes")
    assert raised.value.reason == "TOKEN_INVALID"
    assert await answers(world.admin) == told(VERSIONS[-1])
    await world.stop()


async def write(mip: Mip, cube: str, writer: int, acknowledged: dict[str, int]) -> None:
    """Adds batches until it is cancelled; notes name -> revision of what was acknowledged."""
    number = 0
    while True:
        number += 1
        tag = f"w{writer}-{number}-{random.getrandbits(32):08x}"
        batch = [text(f"{tag} part {part}", tags=[tag]) for part in range(BATCH)]
        added = await mip.AddMemories(parent=cube, memories=batch)
        acknowledged.update({memory.name: memory.revision for memory in added.memories})


async def listed(mip: Mip, cube: str) -> dict[str, Memory]:
    """Returns all memories of a cube by name."""
    found: dict[str, Memory] = {}
    token = ""
    while True:
        page = await mip.ListMemories(parent=cube, page_size=1000, page_token=token)
        found.update((memory.name, memory) for memory in page.memories)
        token = page.next_page_token
        if not token:
            return found


async def test_a_backup_under_writers_holds_all_that_was_acknowledged_before_it(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    await world.start()
    mip = world.admin
    made_cube = await mip.CreateCube(cube_id="c", cube={"embedding_model": "toy", "embedding_dimension": 4096})
    cube = made_cube.cube.name
    # Large enough that the record is copied in several steps, between which the writers go on.
    filler = [text("filler", vectors=[vector(*[float(n + 1)] * 4096)]) for n in range(150)]
    for _ in range(8):
        await mip.AddMemories(parent=cube, memories=filler)
    acknowledged: dict[str, int] = {}
    writers = [asyncio.create_task(write(world.admin, cube, n, acknowledged)) for n in range(4)]
    for round_ in range(2):
        await asyncio.sleep(0.3)
        before = dict(acknowledged)
        made: Manifest = await asyncio.to_thread(make, settings_of(world.data), tmp_path / f"backup{round_}")
        (head,) = made.cubes
        assert len(acknowledged) > len(before), "nothing was written meanwhile"
        # The head is one of the log's, and no older than what was acknowledged.
        commit = (await mip.GetCommit(name=f"{cube}/commits/{head.revision}")).commit
        assert commit.digest == head.digest
        assert max(before.values()) <= head.revision
        restore(tmp_path / f"backup{round_}", tmp_path / f"restored{round_}")
        copy = World(tmp_path / f"restored{round_}")
        await copy.start()
        found = await listed(copy.admin, cube)
        assert [name for name in before if name not in found] == []
        batches: dict[str, int] = {}
        for memory in found.values():
            for tag in memory.tags:
                batches[tag] = batches.get(tag, 0) + 1
        assert set(batches.values()) == {BATCH}
        verdict = await copy.admin.VerifyCube(
            name=cube, expected_revision=head.revision, expected_head_digest=head.digest
        )
        assert verdict.valid, verdict.findings
        assert verdict.head_revision == verdict.indexed_revision == head.revision
        await copy.stop()
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    await world.stop()


async def test_a_backup_after_the_server_was_killed_holds_all_that_was_acknowledged(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    mip = Mip(server.address, server.token)
    await mip.CreateCube(cube_id="c")
    for number in range(20):
        added = await mip.AddMemories(parent="cubes/c", memories=[text(f"note {number}")])
    # Beside the running server, as another process.
    beside = await asyncio.to_thread(run, tmp_path, "backup", "--data", str(server.data), "beside", "--json")
    assert json.loads(beside.stdout)["cubes"][0]["head_digest"] == added.commit.digest.hex()
    last = await mip.AddMemories(parent="cubes/c", memories=[text("the last note")])
    await mip.close()
    server.kill()
    assert (server.data / "record.sqlite-wal").stat().st_size
    made = make(settings_of(server.data), tmp_path / "after")
    assert (made.cubes[0].revision, made.cubes[0].digest) == (22, last.commit.digest)


async def test_what_was_purged_before_a_backup_is_nowhere_in_it(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    await world.start()
    mip = world.admin
    cube = (await mip.CreateCube(cube_id="c")).cube.name
    added = (await mip.AddMemories(parent=cube, memories=[text(PIN), text("kept")])).memories
    await mip.UpdateMemory(memory=text(f"{PIN} indeed", name=added[0].name))
    # A reader of the time before keeps the write-ahead log as it is, so that the old pages are still in it.
    make(settings_of(world.data), tmp_path / "before")
    await mip.PurgeMemories(parent=cube, names=[added[0].name], reason="asked")
    make(settings_of(world.data), tmp_path / "after")
    await world.stop()
    assert b"4417" in bytes_of(tmp_path / "before")
    assert b"4417" not in bytes_of(tmp_path / "after")
    assert b"kept" in bytes_of(tmp_path / "after")


async def test_what_is_purged_while_a_backup_is_made_is_not_in_it(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    await world.start()
    mip = world.admin
    cube = (await mip.CreateCube(cube_id="c")).cube.name
    names = []
    for part in (WEIGHTS, WEIGHTS[:100]):
        blobs = [{"digest": await upload(mip, cube, part), "size": len(part)}]
        adapter = Memory(parametric={"base_fingerprint": PIN, "method": "lora", "blobs": blobs})
        names.append((await mip.AddMemories(parent=cube, memories=[adapter])).memories[0].name)
    loop = asyncio.get_running_loop()
    purges = 0

    def progress(done: int, total: int) -> None:
        nonlocal purges
        if not purges and done == total - len(WEIGHTS) - 100:
            purges += 1
            purge = mip.PurgeMemories(parent=cube, names=names, reason="just now")
            asyncio.run_coroutine_threadsafe(purge, loop).result(30)

    made = await asyncio.to_thread(make, settings_of(world.data), tmp_path / "backup", progress)
    assert purges == 1
    assert [name for name in made.files if name.startswith("blobs/")] == []
    assert b"4417" not in bytes_of(tmp_path / "backup")
    assert made.cubes[0].revision == 4
    assert left_in(tmp_path) == ["backup", "data"]
    await world.stop()


def blob_file(data: Path) -> Path:
    """Returns the file of the adapter's weights in a folder's copy."""
    digest = digest_of(WEIGHTS).removeprefix("sha256:")
    (path,) = (data / "blobs").rglob(digest)
    return path


def test_a_missing_or_damaged_blob_or_record_is_named(tmp_path: Path) -> None:
    data = unpack(VERSIONS[-1], tmp_path / "data")
    path = blob_file(data)
    path.write_bytes(WEIGHTS[:-1] + b"x")
    with pytest.raises(SetupError) as caught:
        make(settings_of(data), tmp_path / "backup")
    uid = told(VERSIONS[-1])["cubes"]["cubes/models"]["uid"]
    digest = digest_of(WEIGHTS)
    assert caught.value.message == f"The blob {digest} of the cube with uid {uid} is damaged ({path})."
    assert caught.value.remedy.startswith("Put its file back from an earlier backup, or purge the memories")
    path.unlink()
    with pytest.raises(SetupError, match="is missing"):
        make(settings_of(data), tmp_path / "backup")
    path.symlink_to(data / "keys" / "token.ed25519.pem")
    with pytest.raises(SetupError, match=r"cannot be made: .*Too many levels of symbolic links"):
        make(settings_of(data), tmp_path / "backup")
    record = bytearray((data / "record.sqlite").read_bytes())
    record[4096 * 3 : 4096 * 20] = bytes(4096 * 17)
    (data / "record.sqlite").write_bytes(bytes(record))
    with pytest.raises(SetupError, match=r"The record .*record\.sqlite is damaged: "):
        make(settings_of(data), tmp_path / "backup")
    (data / "record.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(SetupError, match="The record is damaged: file is not a database"):
        make(settings_of(data), tmp_path / "backup")
    assert left_in(tmp_path) == ["data"]


def test_what_stands_in_the_way_of_a_backup_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = unpack(VERSIONS[-1], tmp_path / "data")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    refusals = {
        tmp_path / "full": "exists already",
        tmp_path / "file": "exists already",
        tmp_path / "none" / "backup": "The folder .*none does not exist",
        tmp_path / "file" / "backup": "file/.* Not a directory|file does not exist",
        data / "backup": "would lie in the data folder itself",
        Path("/"): "exists already",
    }
    for target, message in refusals.items():
        with pytest.raises(SetupError, match=message):
            make(settings_of(data), target)
    with pytest.raises(SetupError, match="no data folder with a record"):
        make(settings_of(tmp_path / "full"), tmp_path / "backup")
    with pytest.raises(SetupError, match="are kept by other, not in the data folder"):
        make(settings_of(data, blobs={"backend": "other"}), tmp_path / "backup")
    monkeypatch.setattr(backup_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(SetupError, match=r"The backup needs 0\.2 MB, and 1\.0 MB are free in ") as caught:
        make(settings_of(data), tmp_path / "backup")
    assert caught.value.remedy == "Free some space, or name another disk."
    assert left_in(tmp_path) == ["data", "file", "full"]


LIMITED = """
import resource, signal, sys
from pathlib import Path
from memos_server.backup import make
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (int(argument) for argument in sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        make(Settings(data=Path(sys.argv[1])), Path(sys.argv[2]))
    except SetupError as error:
        print(error.message)
"""


def test_a_disk_that_fills_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    data = unpack(VERSIONS[-1], tmp_path / "data")
    # What the kernel refuses to write at 50 kB, within the record, and at 1 kB, within the copied settings.
    (data / "memos.toml").write_text("#" * 300_000)
    command = [sys.executable, "-c", LIMITED, str(data), str(tmp_path / "backup"), "50000", "200000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "cannot be made" in first or "has no room" in first
    assert second == f"The disk has no room for the backup {tmp_path / 'backup'}."
    assert left_in(tmp_path) == ["data"]


def test_a_newer_tool_backs_up_an_older_folder_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = unpack(VERSIONS[-1], tmp_path / "data")
    with monkeypatch.context() as newer:
        newer.setattr(data_folder, "FORMAT_VERSION", VERSIONS[-1] + 1)
        made = make(settings_of(data), tmp_path / "backup")
    assert made.format == VERSIONS[-1]
    restore(tmp_path / "backup", tmp_path / "restored")
    assert (tmp_path / "restored" / "FORMAT").read_text().splitlines()[0] == str(VERSIONS[-1])


def test_the_commands_say_what_they_did(tmp_path: Path) -> None:
    data = unpack(VERSIONS[-1], tmp_path / "data")
    done = run(tmp_path, "backup", "--data", str(data), "night", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    manifest = tmp_path / "night" / "backup.json"
    assert said["manifest_sha256"] == digest_of(manifest.read_bytes()).removeprefix("sha256:")
    assert [cube["name"] for cube in said["cubes"]] == list(told(VERSIONS[-1])["cubes"])
    assert (said["format"], said["path"]) == (VERSIONS[-1], str(tmp_path / "night"))
    done = run(tmp_path, "backup", "--data", str(data), "night")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"error: {tmp_path / 'night'} exists already.",
        "remedy: Name a folder that does not exist yet, or an empty one.",
    ]
    done = run(tmp_path, "serve", "--data", "night")
    assert done.stderr.splitlines()[0] == f"error: {tmp_path / 'night'} is a backup, not a data folder."
    done = run(tmp_path, "restore", "night", "--data", "again", "--expect", said["manifest_sha256"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("restored 5 cubes and 2 blobs, 0.2 MB, as of 20")
    assert done.stdout.endswith(f"manifest: sha256 {said['manifest_sha256']}\n")
    assert "Traceback" not in done.stderr
