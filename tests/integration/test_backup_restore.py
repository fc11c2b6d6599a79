"""Restoring: nothing appears that was not verified; and a kill at any instant leaves nothing that looks whole."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memos_sdk import HeadMismatch, HeadStore
from memos_server.backup import make
from memos_server.backup_restore import restore
from memos_server.configs.data_folder import FORMAT_VERSION, THIS_SERVER
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings
from tests.conftest import World
from tests.support.folder_story import WEIGHTS, answers, digest_of
from tests.support.folders import told, unpack
from tests.support.mip import text

ANOTHER = "Restore another backup, or copy this one again from where it was whole."


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup of the folder that this version's fixture holds."""
    make(Settings(data=unpack(FORMAT_VERSION, tmp_path / "data")), tmp_path / "backup")
    return tmp_path / "backup"


def refused(backup: Path, **how: Any) -> SetupError:
    """Restores a backup, which must be refused and leave nothing behind."""
    before = sorted(backup.parent.iterdir())
    with pytest.raises(SetupError) as caught:
        restore(backup, backup.parent / "restored", **how)
    assert sorted(backup.parent.iterdir()) == before
    return caught.value


def edit(backup: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the body of a backup's manifest, and gives it the checksum that it should have."""
    path = backup / "backup.json"
    body = json.loads(path.read_text())["backup"]
    change(body)
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    path.write_text(json.dumps({"backup": body, "sha256": hashlib.sha256(canonical).hexdigest()}))


def test_every_file_that_was_changed_cut_or_removed_is_named(backup: Path) -> None:
    files = [path for path in backup.rglob("*") if path.is_file() and path.name != "backup.json"]
    assert len(files) == 5
    for path in files:
        whole = path.read_bytes()
        name = str(path.relative_to(backup))
        for damaged in (whole[:-1], whole + b"x", bytes([whole[0] ^ 1]) + whole[1:], b""):
            path.write_bytes(damaged)
            error = refused(backup)
            assert error.message == f"{path} is damaged: it does not have its size and SHA-256."
            assert error.remedy == ANOTHER
        path.unlink()
        assert refused(backup).message == f"The backup {backup} lacks {name}."
        elsewhere = backup.parent / "elsewhere"
        elsewhere.write_bytes(whole)
        path.symlink_to(elsewhere)
        assert "Too many levels of symbolic links" in refused(backup).message
        path.unlink()
        path.write_bytes(whole)
    restore(backup, backup.parent / "restored")


def test_a_manifest_that_was_changed_cut_or_removed_is_named(backup: Path) -> None:
    path = backup / "backup.json"
    whole = path.read_bytes()
    digest = digest_of(whole).removeprefix("sha256:")
    body = json.loads(whole)
    body["backup"]["files"]["keys/token.ed25519.pem"]["size"] += 1
    for damaged in (b"", b"{}", b"[]", b"\xff", whole[:-3], b"[" * 100_000, json.dumps(body).encode()):
        path.write_bytes(damaged)
        error = refused(backup)
        assert error.message.startswith(f"{path} is damaged: ")
        assert error.remedy == "Restore another backup."
    # Whoever writes it anew with a right checksum is found by the digest that is known from elsewhere.
    path.write_bytes(whole)
    edit(backup, lambda body: body.update(time="2020-01-01T00:00:00Z"))
    error = refused(backup, expect=digest)
    assert error.message.endswith("not the expected one.")
    path.unlink()
    assert refused(backup).message == f"{backup} is no backup: it has no backup.json."
    path.write_bytes(whole)
    restore(backup, backup.parent / "restored", expect=digest.upper())


HOSTILE = {
    "a name that leads out": lambda body: body["files"].update({"../out": {"size": 1, "sha256": "0" * 64}}),
    "an absolute name": lambda body: body["files"].update({"/etc/passwd": {"size": 1, "sha256": "0" * 64}}),
    "a name in a folder of its own": lambda body: body["files"].update({"keys/../x": {"size": 1, "sha256": "0" * 64}}),
    "a file that no backup holds": lambda body: body["files"].update({"FORMAT": {"size": 1, "sha256": "0" * 64}}),
    "a size below 0": lambda body: body["files"]["record.sqlite"].update(size=-1),
    "a size that is no number": lambda body: body["files"]["record.sqlite"].update(size=True),
    "a digest that is none": lambda body: body["files"]["record.sqlite"].update(sha256="x" * 64),
    "a digest of another type": lambda body: body["files"]["record.sqlite"].update(sha256=7),
    "no record": lambda body: body["files"].pop("record.sqlite"),
    "no files": lambda body: body.pop("files"),
    "files in a list": lambda body: body.update(files=[1]),
    "no format": lambda body: body.pop("format"),
    "a format that is no number": lambda body: body.update(format="1"),
    "format 0": lambda body: body.update(format=0),
    "a writer that steers the terminal": lambda body: body.update(writer="\x1b[2J"),
    "a writer of another type": lambda body: body.update(writer=["x"]),
    "cubes that are none": lambda body: body.update(cubes=[{"name": 1}]),
    "a cube with a name that is none": lambda body: body["cubes"][0].update(name="notes"),
    "a head that is none": lambda body: body["cubes"][0].update(head_digest="x"),
    "a cube without uid": lambda body: body["cubes"][0].update(uid="x"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_manifest_is_refused(what: str, backup: Path) -> None:
    edit(backup, HOSTILE[what])
    assert refused(backup).message.startswith(f"{backup / 'backup.json'} is damaged: ")


def test_a_record_that_is_not_what_the_manifest_says_is_refused(backup: Path) -> None:
    edit(backup, lambda body: body["cubes"][1].update(revision=99))
    assert refused(backup).message == "cubes/models has not the head that the backup's manifest says."
    edit(backup, lambda body: body["cubes"].pop(1))
    assert "has not the head" in refused(backup).message
    edit(backup, lambda body: body.update(cubes=[]))
    assert refused(backup).message == "The backup's record has not the cubes that its manifest says."
    (backup / "record.sqlite").write_bytes(b"x" * 100)
    entry = {"size": 100, "sha256": hashlib.sha256(b"x" * 100).hexdigest()}
    edit(backup, lambda body: body["files"].update({"record.sqlite": entry}))
    assert refused(backup).message.startswith("The backup's record is damaged: ")


@pytest.mark.parametrize(
    "change",
    ["uid = x'00'", "uid = 'text'", "id = x'ff'", "id = CAST(x'ff' AS TEXT)", "revision = 'x'", "head_digest = 7.5"],
)
def test_a_record_with_values_of_other_types_is_damaged(change: str, backup: Path) -> None:
    record = backup / "record.sqlite"
    with closing(sqlite3.connect(record)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute(f"UPDATE cubes SET {change} WHERE key = 1")
        db.commit()
    content = record.read_bytes()
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(backup, lambda body: body["files"].update({"record.sqlite": entry}))
    assert refused(backup).message.startswith("The backup's record is damaged: ")
    shutil.copy(record, backup.parent / "data" / "record.sqlite")
    with pytest.raises(SetupError, match=r"ecord .*damaged|cannot be made: Could not decode"):
        make(Settings(data=backup.parent / "data"), backup.parent / "again")


def test_a_backup_of_a_newer_server_is_refused(backup: Path) -> None:
    edit(backup, lambda body: body.update(format=FORMAT_VERSION + 1, writer="memos-mip 9.0.0", later="unknown"))
    error = refused(backup)
    assert error.message == (
        f"The backup {backup} has format {FORMAT_VERSION + 1}, written by memos-mip 9.0.0; "
        f"this server, {THIS_SERVER}, reads up to {FORMAT_VERSION}."
    )
    assert error.remedy.startswith("Start memos-mip 9.0.0, or restore")


def test_a_folder_in_use_is_not_restored_over(backup: Path, tmp_path: Path) -> None:
    for target, message in (
        (tmp_path / "data", "exists already"),
        (backup / "deep", "would lie in the backup"),
        (tmp_path / "data" / "FORMAT", "exists already"),
        (tmp_path / "data" / "FORMAT" / "x", "cannot be made"),
    ):
        with pytest.raises(SetupError, match=message):
            restore(backup, target)
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(SetupError, match="exists already"):
        restore(backup, tmp_path / "link")
    (tmp_path / "empty").mkdir()
    restore(backup, tmp_path / "empty")
    assert (tmp_path / "empty" / "record.sqlite").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from memos_server.backup import make
from memos_server.backup_restore import restore
from memos_server.configs.settings import Settings

what, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])


def run():
    if what == "backup":
        make(Settings(data=source), target)
    else:
        restore(source, target)


def killed_at(call):
    # Before each call that makes something durable or visible, the process ends as by a power button.
    calls = 0

    def counted(function):
        def wrapper(*arguments):
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)
        return wrapper

    os.fsync, os.rename, os.replace = counted(os.fsync), counted(os.rename), counted(os.replace)
    run()


call, visible = 0, 0
while True:
    call += 1
    child = os.fork()
    if not child:
        killed_at(call)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    seen = target.exists()
    print(call, os.WIFSIGNALED(status), seen, flush=True)
    if not os.WIFSIGNALED(status):
        sys.exit(os.WEXITSTATUS(status))
    if seen:
        # Visible before the end: only the folder above it is not yet synced.
        os.rename(target, target.with_name(f"visible{call}"))
"""


async def reads_as_told(data: Path) -> None:
    """Checks that a folder answers as the fixture of this version does."""
    world = World(data)
    await world.start()
    assert await answers(world.admin) == told(FORMAT_VERSION)
    await world.stop()


@pytest.mark.parametrize("what", ["backup", "restore"])
def test_a_kill_at_any_instant_leaves_nothing_that_looks_whole_and_is_not(
    what: str, backup: Path, tmp_path: Path
) -> None:
    source = tmp_path / "data" if what == "backup" else backup
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, what, str(source), str(work / "target")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = [line.split()[1:] for line in done.stdout.splitlines()]
    assert len(calls) > 12
    # All but the last call were killed; only the very last step may come after the rename.
    assert [killed for killed, _ in calls] == ["True"] * (len(calls) - 1) + ["False"]
    assert [seen for _, seen in calls] == ["False"] * (len(calls) - 2) + ["True"] * 2
    for whole in (work / f"visible{len(calls) - 1}", work / "target"):
        if what == "backup":
            restore(whole, work / f"of-{whole.name}")
            whole = work / f"of-{whole.name}"
        asyncio.run(reads_as_told(whole))
    # What was cut off cannot be taken for a backup or a data folder, unless nothing but its name was missing.
    rests = list(work.glob(".target.*.tmp"))
    assert len(rests) == len(calls) - 2
    for number, rest in enumerate(rests):
        if (rest / "backup.json").exists():
            restore(rest, work / f"rest{number}")
        elif what == "backup":
            with pytest.raises(SetupError, match="is no backup"):
                restore(rest, work / f"rest{number}")
        elif not (rest / "FORMAT").exists() and (rest / "record.sqlite").exists():
            with pytest.raises(SetupError, match="holds a record but no FORMAT"):
                asyncio.run(World(rest).start())


async def test_who_saw_a_later_head_can_tell_that_the_log_went_back(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    await world.start()
    mip = world.admin
    cube = (await mip.CreateCube(cube_id="c")).cube
    await mip.AddMemories(parent=cube.name, memories=[text("before the backup")])
    make(Settings(data=world.data), tmp_path / "backup")
    later = (await mip.AddMemories(parent=cube.name, memories=[text("after the backup")])).commit
    heads = HeadStore()
    heads.observe(cube.uid, later.revision, later.digest, b"")
    await world.stop()
    restore(tmp_path / "backup", tmp_path / "restored")
    copy = World(tmp_path / "restored")
    await copy.start()
    verdict = await copy.admin.VerifyCube(
        name=cube.name, expected_revision=later.revision, expected_head_digest=later.digest
    )
    assert not verdict.valid
    assert {finding.kind for finding in verdict.findings} == {"head"}
    # The first write of the restored cube takes the revision that the client has seen with another digest.
    again = (await copy.admin.AddMemories(parent=cube.name, memories=[text("after the restore")])).commit
    assert again.revision == later.revision
    with pytest.raises(HeadMismatch):
        heads.observe(cube.uid, again.revision, again.digest, b"")
    await copy.stop()


async def test_a_restored_index_is_made_from_the_record(backup: Path, tmp_path: Path) -> None:
    assert not (backup / "index").exists()
    assert any(path.read_bytes() == WEIGHTS for path in (backup / "blobs").rglob("*") if path.is_file())
    restore(backup, tmp_path / "restored")
    shutil.rmtree(backup)
    world = World(tmp_path / "restored")
    await world.start()
    found = await world.admin.SearchMemories(cubes=["cubes/notes"], query="lighthouse")
    assert [hit.memory.name for hit in found.hits] == ["cubes/notes/memories/b"]
    await world.stop()
