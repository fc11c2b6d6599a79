"""Migrations that are killed, meet wrong targets, lost answers, full disks and damage: nothing is lost, nothing is
doubled, and whoever runs them learns what to do."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from memos_server import migrate_logs, migrate_rows
from memos_server.blob_stores.filesystem import blob_path
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings
from memos_server.errors import MipError
from memos_server.graph_dbs.base import RecordStore, Writer
from memos_server.graph_dbs.moving import Table
from memos_server.graph_dbs.sqlite import SqliteRecordStore
from memos_server.migrate import migrate
from memos_server.migrate_sides import target_settings
from tests.conftest import MakeWorld, World
from tests.support.folder_story import WEIGHTS, fill, upload
from tests.support.migrations import Silent, everything, moved, run, settings_of, told_by
from tests.support.mip import text

T = TypeVar("T")

SEED = int(os.environ.get("MEMOS_TEST_SEED", "20261121"))


async def filled(make_world: MakeWorld) -> World:
    """Returns a server, stopped, whose folder holds every sort of thing."""
    world = await make_world()
    await fill(world.admin)
    await world.stop()
    return world


async def test_a_migration_that_is_killed_at_any_moment_is_gone_on_with(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    admin = world.admin
    await fill(admin)
    for number in range(3):
        cube = f"cubes/many{number}"
        await admin.CreateCube(cube_id=f"many{number}")
        for batch in range(40):
            await admin.AddMemories(parent=cube, memories=[text(f"{batch} {turn}") for turn in range(25)])
        for size in range(10):
            await upload(admin, cube, random.Random(size).randbytes(200_000))
    expected = await everything(admin)
    await world.stop()
    rng = random.Random(SEED)
    command = [sys.executable, "-c", _SLOWLY, str(world.data), str(tmp_path / "there")]
    killed = 0
    for _ in range(12):
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        # It says when it begins to copy; from there on it takes a second or so.
        assert (await process.stderr.readline()).startswith(b"begins")
        await asyncio.sleep(rng.uniform(0, 0.4))
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        killed += await process.wait() == -signal.SIGKILL
    assert killed > 3
    ended = await run("migrate", "--data", world.data, "--to", "sqlite+embedded", "--target-data", tmp_path / "there")
    # The last of the processes may have come to its end.
    assert ended.returncode == 0 or "has moved to" in ended.stderr, ended.stderr
    assert await told_by(tmp_path / "there") == expected


_SLOWLY = """
import asyncio, sys
from pathlib import Path
from memos_server import migrate, migrate_logs
from tests.support.migrations import moved
migrate_logs._CHANGES = 40
write = migrate_logs._write
async def slow(*args, **kwargs):
    import time
    time.sleep(0.005)
    return await write(*args, **kwargs)
migrate_logs._write = slow
print("begins", file=sys.stderr, flush=True)
asyncio.run(moved(Path(sys.argv[1]), Path(sys.argv[2])))
"""


async def test_an_answer_that_is_lost_does_not_make_it_copy_twice(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world()
    await fill(world.admin)
    expected = await everything(world.admin)
    await world.stop()
    rng = random.Random(SEED)
    write = SqliteRecordStore.write
    lost = 0

    async def sometimes(self: SqliteRecordStore, work: Callable[[Writer], Awaitable[T]]) -> T:
        nonlocal lost
        chance = rng.random()
        if chance < 0.2:
            raise MipError("BACKEND_UNAVAILABLE", "away before it was written")
        found = await write(self, work)
        if chance < 0.4:
            lost += 1
            raise MipError("BACKEND_UNAVAILABLE", "the answer is lost")
        return found

    monkeypatch.setattr(SqliteRecordStore, "write", sometimes)
    monkeypatch.setattr(migrate_logs, "_PAUSES_S", (0.001,))
    report = await moved(world.data, tmp_path / "there")
    monkeypatch.undo()
    assert report.finished
    assert lost > 3
    assert await told_by(tmp_path / "there") == expected


async def test_a_target_that_stays_away_ends_it_with_what_to_do(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await filled(make_world)
    write = SqliteRecordStore.write
    turns = 0

    async def gone(self: SqliteRecordStore, work: Callable[[Writer], Awaitable[T]]) -> T:
        nonlocal turns
        turns += 1
        if turns > 4:
            raise MipError("BACKEND_UNAVAILABLE", "the target is away; see whether it runs")
        return await write(self, work)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteRecordStore, "write", gone)
        patched.setattr(migrate_logs.patiently, "__defaults__", (0.2,))
        with pytest.raises(MipError, match="the target is away"):
            await moved(world.data, tmp_path / "there")
    # Neither side serves half of it as if it were all.
    with pytest.raises(SetupError, match="is being filled by a migration"):
        await World(tmp_path / "there").start()
    assert (await moved(world.data, tmp_path / "there")).finished


async def test_a_full_disk_ends_it_and_with_room_it_goes_on(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    await fill(world.admin)
    await world.admin.CreateCube(cube_id="large")
    for _ in range(10):
        await world.admin.AddMemories(parent="cubes/large", memories=[text("x" * 50_000) for _ in range(20)])
    expected = await everything(world.admin)
    await world.stop()

    def small() -> None:
        # A file that may not grow is what a full disk is to who writes it.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 2**20, 4 * 2**20))

    command = [sys.executable, "-m", "memos_server", "migrate", "--data", str(world.data), "--to", "sqlite+embedded"]
    command += ["--target-data", str(tmp_path / "there")]
    ended = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, preexec_fn=small, timeout=60
    )
    assert ended.returncode == 1
    assert "remedy:" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (await moved(world.data, tmp_path / "there")).finished
    assert await told_by(tmp_path / "there") == expected


async def test_a_target_that_is_not_this_migrations_is_refused(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await filled(make_world)
    other = await make_world()
    with pytest.raises(SetupError, match="Another server"):
        await moved(world.data, other.data)
    await other.stop()
    # A server was started on it once: it has an administrator.
    with pytest.raises(SetupError, match="is not empty and is not this migration's: it holds principals/local-admin"):
        await moved(world.data, other.data)
    await other.start()
    await other.admin.CreateCube(cube_id="mine")
    await moved(other.data, tmp_path / "others")
    with pytest.raises(SetupError, match=r"is being filled by another migration, from sqlite"):
        await moved(world.data, tmp_path / "others")
    await other.stop()
    with pytest.raises(SetupError, match="has itself been migrated, or is being: its mark says source"):
        await moved(world.data, other.data)
    # Nothing was written to any of them, nor was the source marked.
    assert not (world.data / "migration.json").exists()
    with pytest.raises(SetupError, match="The source itself is being filled"):
        await moved(tmp_path / "others", tmp_path / "third")
    with pytest.raises(SetupError, match="no data folder with a record"):
        await moved(tmp_path / "absent", tmp_path / "fourth")


async def test_a_target_that_somebody_wrote_to_is_not_gone_on_with(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    await fill(world.admin)
    await moved(world.data, tmp_path / "there")
    with closing(sqlite3.connect(tmp_path / "there" / "record.sqlite")) as db, db:
        db.execute("UPDATE cubes SET head_digest = zeroblob(32) WHERE id = 'models'")
    with pytest.raises(SetupError, match="another commit at revision 3 of cubes/models"):
        await moved(world.data, tmp_path / "there")


DAMAGE = {
    "a payload": (
        "UPDATE contents SET payload = x'00' WHERE length(payload) > 0",
        "opens? its commitment|not the same",
    ),
    "a salt": ("UPDATE contents SET salt = zeroblob(32) WHERE length(salt) > 0", "open its commitment"),
    "a vector": ("UPDATE vectors SET data = zeroblob(8)", r"cubes/notes is not the same at or before revision 15"),
    "a lost vector": ("DELETE FROM vectors", "cubes/notes is not the same"),
    "a change": ("UPDATE versions SET change = CAST(change || x'00' AS BLOB) WHERE kind = 1", "does not fit the chain"),
    "a header": (
        "UPDATE commits SET header = CAST(header || x'5801' AS BLOB) WHERE revision = 2",
        "does not fit the chain",
    ),
    "a state": ("UPDATE versions SET state = 3 WHERE kind = 1 AND state = 1", "not the same"),
    "a label": ("UPDATE versions SET sensitivity = 1 WHERE sensitivity = 4", "not the same"),
    "an order": ("UPDATE items SET create_time = create_time + 1", "not the same"),
    "what a content names": ("DELETE FROM content_blobs", "not the same"),
}


@pytest.mark.parametrize("what", DAMAGE)
async def test_what_differs_in_the_target_is_found_before_the_switch(
    what: str, make_world: MakeWorld, tmp_path: Path
) -> None:
    world = await make_world()
    await fill(world.admin)
    await moved(world.data, tmp_path / "there")
    await world.stop()
    statement, message = DAMAGE[what]
    with closing(sqlite3.connect(tmp_path / "there" / "record.sqlite")) as db, db:
        assert db.execute(statement).rowcount > 0
    with pytest.raises(SetupError, match=f"What was copied is not the same: .*({message})"):
        await moved(world.data, tmp_path / "there")
    # The source serves as before.
    await world.start()
    assert (await world.admin.VerifyCube(name="cubes/notes")).valid


async def test_rows_that_went_astray_in_the_target_are_set_right(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    await fill(world.admin)
    expected = await everything(world.admin)
    await moved(world.data, tmp_path / "there")
    await world.stop()
    with closing(sqlite3.connect(tmp_path / "there" / "record.sqlite")) as db, db:
        db.execute("UPDATE requests SET revision = 99")
        db.execute("DELETE FROM revoked_tokens")
        db.execute("UPDATE grants SET role = 3 WHERE principal = 'principals/reader'")
        db.execute("DELETE FROM blob_proofs")
        db.execute("UPDATE jobs SET state = 1")
        db.execute(
            "INSERT INTO jobs SELECT cube, 'stray', kind, 1, principal, 0, 0, 0, 0, '', '', '', 0 FROM jobs LIMIT 1"
        )
        db.execute("DELETE FROM audit_events WHERE sequence = (SELECT max(sequence) FROM audit_events)")
        # As one that became visible in the source after later ones had been copied.
        db.execute("DELETE FROM audit_events WHERE sequence = (SELECT min(sequence) FROM audit_events)")
    for digest in (tmp_path / "there" / "blobs").rglob("*"):
        if digest.is_file():
            digest.unlink()
    assert (await moved(world.data, tmp_path / "there")).finished
    assert await told_by(tmp_path / "there") == expected


async def test_cubes_that_became_visible_in_another_order_than_they_were_made_in_are_the_same(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await filled(make_world)
    in_order = migrate_logs.heads

    async def backwards(store: RecordStore) -> list[migrate_logs.Head]:
        return (await in_order(store))[::-1]

    monkeypatch.setattr(migrate_logs, "heads", backwards)
    assert (await moved(world.data, tmp_path / "there")).finished
    ours, theirs = [], []
    for data, found in ((world.data, ours), (tmp_path / "there", theirs)):
        with closing(sqlite3.connect(data / "record.sqlite")) as db:
            found += [id_ for (id_,) in db.execute("SELECT id FROM cubes ORDER BY key")]
    assert len(ours) > 1
    assert theirs == ours[::-1]


async def test_rows_of_cubes_that_the_target_does_not_have_yet_and_late_events_come_with_the_last_pass(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    world = await filled(make_world)
    (tmp_path / "there").mkdir()
    ours, theirs = SqliteRecordStore(str(world.data)), SqliteRecordStore(str(tmp_path / "there"))
    await ours.open()
    await theirs.open()
    try:
        events = await ours.loose_rows(Table.AUDIT_EVENTS, (0,), 999)
        await theirs.put_loose_rows(Table.AUDIT_EVENTS, events[1:])
        assert await ours.loose_rows(Table.BLOBS, ("", ""), 9)
        await migrate_rows.equal_rows(ours, theirs, last=False)
        assert await theirs.loose_rows(Table.BLOBS, ("", ""), 9) == []
        assert await theirs.loose_rows(Table.AUDIT_EVENTS, (0,), 999) == events
        await migrate_logs.copy_logs(ours, theirs, lambda _: None, 1)
        await migrate_rows.equal_rows(ours, theirs, last=True)
        for table, first in ((Table.BLOBS, ("", "")), (Table.BLOB_PROOFS, ("", "", "")), (Table.AUDIT_EVENTS, (0,))):
            rows = await ours.loose_rows(table, first, 999)
            assert rows
            assert await theirs.loose_rows(table, first, 999) == rows
    finally:
        await ours.close()
        await theirs.close()


async def test_a_blob_that_the_source_has_lost_is_named(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    await fill(world.admin)
    uid = (await world.admin.GetCube(name="cubes/models")).cube.uid
    digest = await upload(world.admin, "cubes/models", WEIGHTS[:777])
    await world.stop()
    file = world.data / blob_path(uid, digest)
    kept = file.read_bytes()
    for damaged in (b"", kept[:-1] + b"\0"):
        file.unlink(missing_ok=True)
        if damaged:
            file.write_bytes(damaged)
        with pytest.raises(MipError, match=f"the blob {digest} of cubes/models are missing or damaged") as failed:
            await moved(world.data, tmp_path / "there")
        assert failed.value.reason == "DATA_CORRUPT"
    file.write_bytes(kept)
    assert (await moved(world.data, tmp_path / "there")).finished


async def test_a_large_blob_goes_on_where_it_was_cut_off(make_world: MakeWorld, tmp_path: Path) -> None:
    world = await make_world()
    await world.admin.CreateCube(cube_id="c")
    data = random.Random(SEED).randbytes(3 * 2**20)
    uid = (await world.admin.GetCube(name="cubes/c")).cube.uid
    digest = await upload_large(world, data)
    await world.stop()
    ours = settings_of(world.data)
    theirs = target_settings("sqlite+embedded", None, tmp_path / "there", ours)
    part = tmp_path / "there" / f"{blob_path(uid, digest)}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(data[: 2**20 + 5])

    class Counting(Silent):
        written = 0

        def done(self, count: int) -> None:
            if "blobs" in self.stages[-1]:
                self.written += count

    counting = Counting()
    assert (await migrate(ours, theirs, counting)).finished
    assert counting.written == len(data) - 2**20 - 5
    assert (tmp_path / "there" / blob_path(uid, digest)).read_bytes() == data


async def upload_large(world: World, data: bytes) -> str:
    """Uploads a blob of several frames and returns its digest."""
    from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
    from tests.support.folder_story import digest_of

    frames: list[Any] = [WriteBlobRequest(header=BlobHeader(parent="cubes/c", digest=digest_of(data), size=len(data)))]
    frames += [
        WriteBlobRequest(data=BlobData(offset=start, data=data[start : start + 2**20]))
        for start in range(0, len(data), 2**20)
    ]
    await world.admin.upload("WriteBlob", [*frames, WriteBlobRequest(finish=True)])
    return digest_of(data)


async def test_a_switch_that_was_cut_off_is_made_by_the_next_run(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world()
    await fill(world.admin)
    expected = await everything(world.admin)
    await world.stop()
    set_mark = SqliteRecordStore.set_mark

    async def cut_off(self: SqliteRecordStore, text: str) -> None:
        if not text:
            raise KeyboardInterrupt
        await set_mark(self, text)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteRecordStore, "set_mark", cut_off)
        with pytest.raises(KeyboardInterrupt):
            await moved(world.data, tmp_path / "there")
    # Both sides are closed now, and one command opens the new one.
    for folder in (world.data, tmp_path / "there"):
        with pytest.raises(SetupError):
            await World(folder).start()
    assert (await moved(world.data, tmp_path / "there")).finished
    assert await told_by(tmp_path / "there") == expected


async def test_a_server_that_is_busy_all_the_time_does_not_keep_it_for_ever(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from memos_server import migrate as module

    world = await make_world()
    await world.admin.CreateCube(cube_id="busy")
    monkeypatch.setattr(module, "_LITTLE", 0)
    monkeypatch.setattr(module, "_PASSES", 4)
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await world.admin.AddMemories(parent="cubes/busy", memories=[text("one more")])

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.1)
    report = await moved(world.data, tmp_path / "there")
    stop.set()
    await writing
    assert len(report.passes) <= 4
    assert not report.finished


def test_a_mark_that_is_no_mark_is_told(tmp_path: Path) -> None:
    from memos_server.graph_dbs.moving import Mark

    for written in ("no json", "[]", '{"role": "other", "id": "", "other": "", "time": ""}'):
        with pytest.raises(SetupError, match="does not understand"):
            Mark.of(written)
    assert isinstance(settings_of(tmp_path), Settings)
