"""Folders that earlier versions wrote: opened, brought up to date, and read as they were."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from memos_server._pb.mip.v1.job_pb2 import JOB_STATE_SUCCEEDED
from memos_server.configs.data_folder import FORMAT_VERSION, THIS_SERVER
from memos_server.configs.errors import SetupError
from memos_server.graph_dbs.sqlite.schema import MIGRATIONS
from tests.conftest import World
from tests.support.folder_story import answers
from tests.support.folders import FOLDERS, VERSIONS, files_of, told, unpack
from tests.support.mip import Mip


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


NEXT = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from memos_server.configs import data_folder
from memos_server.configs.settings import Settings
from memos_server.graph_dbs.sqlite import schema, store
from memos_server.main import serving

# A server of the next version: its migration writes each content anew, and may be killed in the middle of it, or find
# the disk full.
data_folder.FORMAT_VERSION += 1
data_folder.THIS_SERVER = "memos-mip 9.0.0"
schema.MIGRATIONS.append(
    "CREATE TABLE later (note TEXT NOT NULL);"
    "UPDATE contents SET commitment = interrupted(key, commitment);"
    "INSERT INTO later VALUES ('made by the next version');"
)
kill_at = int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))


def interrupted(key, value):
    if key == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def migrate(connection, migrate=schema.migrate):
    connection.create_function("interrupted", 2, interrupted)
    migrate(connection)


store.migrate = migrate


async def main():
    settings = Settings(
        data=Path(sys.argv[1]), listen="127.0.0.1:0", embedder={"backend": "none"}, embedding={"default_model": "none"}
    )
    async with serving(settings) as server:
        print(server.address, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
"""
"""A server of a version that is not written yet: today's, with one more migration."""


class NextServer:
    """Today's server with one more migration, in a process of its own.

    It dies at the content with the key `kill_at`, and can write no file beyond `most_bytes`.
    """

    def __init__(self, data: Path, kill_at: int = 0, most_bytes: int = 10**9) -> None:
        """Starts the server and waits until it listens or has ended; `address` is empty then."""
        command = [sys.executable, "-c", NEXT, str(data), str(kill_at), str(most_bytes)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def end(self) -> tuple[int, str]:
        """Ends the server in order; returns its status and what it printed to the error stream."""
        _, printed = self.process.communicate(timeout=30)
        return self.process.returncode, printed


def user_version(record: Path) -> int:
    """Returns the version of a record's schema."""
    with closing(sqlite3.connect(record)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


async def test_a_server_killed_in_the_middle_of_a_migration_leaves_the_version_before(tmp_path: Path) -> None:
    data = unpack(FORMAT_VERSION, tmp_path / "data")
    for content in (1, 4, 9):
        killed = NextServer(data, kill_at=content)
        assert killed.address == ""
        assert killed.end()[0] == -signal.SIGKILL
    world = World(data)
    await world.start()
    assert await answers(world.admin) == told(FORMAT_VERSION)
    await world.stop()
    assert (data / "FORMAT").read_text() == f"{FORMAT_VERSION}\n{THIS_SERVER}\n"
    assert user_version(data / "record.sqlite") == FORMAT_VERSION


def test_a_disk_too_full_for_the_copy_leaves_the_version_before(tmp_path: Path) -> None:
    data = unpack(FORMAT_VERSION, tmp_path / "data")
    before = files_of(data)
    server = NextServer(data, most_bytes=(data / "record.sqlite").stat().st_size - 4096)
    status, printed = server.end()
    assert status == 1
    assert "record.sqlite cannot be opened" in printed
    after = files_of(data)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() <= {"lock", "record.sqlite-wal", "record.sqlite-shm"}


async def test_a_migration_keeps_a_copy_of_the_record_until_a_purge(tmp_path: Path) -> None:
    data = unpack(FORMAT_VERSION, tmp_path / "data")
    # What an upgrade left that was cut off while it copied.
    (data / "record.v0.tmp").write_bytes(b"Only for those who may.")
    server = NextServer(data)
    copy = data / f"record.v{FORMAT_VERSION}.sqlite"
    mip = Mip(server.address, (data / "admin.token").read_text().strip())
    try:
        # Everything but what the new version adds is as before.
        assert await answers(mip) == told(FORMAT_VERSION)
        assert user_version(copy) == FORMAT_VERSION
        assert copy.stat().st_mode & 0o777 == 0o600
        assert b"Only for those who may." in copy.read_bytes()
        purged = await mip.PurgeMemories(parent="cubes/notes", names=["cubes/notes/memories/secret"], reason="asked")
        job = (await mip.GetJob(name=purged.compaction_job)).job
        assert job.state == JOB_STATE_SUCCEEDED
        assert not copy.exists()
    finally:
        await mip.close()
        status, printed = server.end()
    assert status == 0
    assert (
        f"the record is brought from format {FORMAT_VERSION} to {FORMAT_VERSION + 1}; as it was it lies in" in printed
    )
    assert b"Only for those who may." not in b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())


def refused(data: Path) -> SetupError:
    """Starts a server that refuses the folder and changes nothing in it."""
    before = files_of(data)
    with pytest.raises(SetupError) as caught:
        asyncio.run(World(data).start())
    assert files_of(data) == before
    return caught.value


def test_a_folder_of_a_newer_server_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    data = unpack(FORMAT_VERSION, tmp_path / "data")
    server = NextServer(data)
    assert server.address
    assert server.end()[0] == 0
    error = refused(data)
    assert error.message == (
        f"The data folder {data} has format {FORMAT_VERSION + 1}, written by memos-mip 9.0.0; "
        f"this server, {THIS_SERVER}, reads up to {FORMAT_VERSION}."
    )
    assert error.remedy == "Start memos-mip 9.0.0, or restore a backup of before the upgrade into a new folder."
    # The power failed after the migration and before FORMAT was written: the record itself says it.
    (data / "FORMAT").write_text(f"{FORMAT_VERSION}\n{THIS_SERVER}\n")
    error = refused(data)
    assert error.message == (
        f"The record of the data folder {data} has format {FORMAT_VERSION + 1}; "
        f"this server, {THIS_SERVER}, reads up to {FORMAT_VERSION}."
    )
    assert error.remedy.startswith("Start the newer server that wrote it, or restore")


async def test_a_newer_record_that_only_its_write_ahead_log_tells_of_is_refused(tmp_path: Path) -> None:
    data = unpack(FORMAT_VERSION, tmp_path / "data")
    with closing(sqlite3.connect(data / "record.sqlite")) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
        crashed = tmp_path / "crashed"
        shutil.copytree(data, crashed)
    world = World(crashed)
    with pytest.raises(SetupError, match=f"has format {FORMAT_VERSION + 1}; this server"):
        await world.start()
    await world.stop()
    with pytest.raises(SetupError, match="has format"):
        await world.start()
    assert user_version(crashed / "record.sqlite") == FORMAT_VERSION + 1


@pytest.mark.parametrize("newer", ["index", "snapshots"])
async def test_an_index_of_a_newer_server_is_made_anew(newer: str, tmp_path: Path) -> None:
    data = unpack(FORMAT_VERSION, tmp_path / "data")
    if newer == "index":
        (data / "index" / "VERSION").write_text("99.9")
    else:
        manifests = list((data / "index").rglob("manifest.json"))
        assert len(manifests) > 1
        for manifest in manifests:
            body = json.loads(manifest.read_text())["body"]
            body["format"] += 1
            canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
            outer = {"body": body, "crc32": zlib.crc32(canonical)}
            manifest.write_text(json.dumps(outer, sort_keys=True, separators=(",", ":")))
    world = World(data)
    await world.start()
    assert await answers(world.admin) == told(FORMAT_VERSION)
    await world.stop()
