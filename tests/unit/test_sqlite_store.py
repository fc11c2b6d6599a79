"""What is special to the embedded record store: its files, its one writer thread, and what it does when they break."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.graph_dbs.base import AuditRow, Kind, Reader, Writer
from memos_server.graph_dbs.sqlite import SqliteRecordStore
from memos_server.graph_dbs.sqlite.schema import MIGRATIONS, migrate
from tests.ports.records import PURGED, append, change, commit, create, following, memory

TABLES = {
    "audit_events", "blob_proofs", "blobs", "commits", "content_blobs", "contents", "cubes", "grants", "items",
    "jobs", "principals", "requests", "revoked_tokens", "vectors", "versions",
}  # fmt: skip


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteRecordStore]:
    opened = SqliteRecordStore(str(tmp_path))
    await opened.open()
    yield opened
    await opened.close()


def connection_of(txn: Reader | Writer) -> sqlite3.Connection:
    """Returns the connection that a piece of work runs on."""
    connection = txn._db  # type: ignore[union-attr]
    assert isinstance(connection, sqlite3.Connection)
    return connection


class Held:
    """Keeps the writer thread busy until it is let go."""

    def __init__(self) -> None:
        """Prepares."""
        self.started, self.go = threading.Event(), threading.Event()

    async def __call__(self, txn: Writer) -> str:
        """Is the work."""
        self.started.set()
        assert self.go.wait(30)
        await txn.put_audit(AuditRow(1, "p", "held", "r", "OK"))
        return "done"

    async def running(self) -> None:
        """Returns once the writer thread is at it."""
        assert await asyncio.to_thread(self.started.wait, 30)


async def audit(txn: Writer) -> str:
    await txn.put_audit(AuditRow(1, "p", "m", "r", "OK"))
    return "written"


async def methods(store: SqliteRecordStore) -> list[str]:
    rows = await store.read(lambda txn: txn.audit_events("", 2**62, 999))
    return [row.method for row in rows]


# Durability and erasure


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("secure_delete", 1), ("busy_timeout", 10_000), ("mmap_size", 0)],
)
async def test_the_writer_waits_for_the_disk_and_overwrites_what_it_deletes(
    store: SqliteRecordStore, pragma: str, value: object
) -> None:
    async def ask(txn: Writer) -> object:
        row: tuple[object, ...] | None = connection_of(txn).execute(f"PRAGMA {pragma}").fetchone()
        return row[0] if row else 0

    assert await store.write(ask) == value


async def test_readers_cannot_write(store: SqliteRecordStore) -> None:
    async def work(txn: Reader) -> None:
        connection_of(txn).execute("DELETE FROM cubes")

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await store.read(work)


async def test_erased_words_leave_every_file_once_it_is_compacted(store: SqliteRecordStore, tmp_path: Path) -> None:
    secret = "the PIN of the safe is 4417-0932"
    vector = b"\x42\x13\x77\x01" * 64
    await create(store, "c", *[memory(f"m{n}", f"filler {n} " + "x" * 700) for n in range(40)])
    await commit(store, "c", memory("a", secret, vector=vector))
    await change(store, "c", Kind.MEMORY, ["a"], words=secret + ", changed")

    def found() -> bool:
        data = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
        return secret.encode() in data or vector[:64] in data

    assert found()

    async def purge(txn: Writer) -> None:
        cube = await txn.lock_cube("c")
        assert cube is not None
        version = (await txn.versions(cube.key, Kind.MEMORY, ["a"]))["a"]
        await append(txn, "c", [following(version, state=PURGED, erased=True)])
        await txn.erase(cube.key, [version.item])

    await store.write(purge)
    assert await store.compact()
    assert (tmp_path / "record.sqlite-wal").stat().st_size == 0
    assert not found()


async def test_compaction_says_when_a_reader_stands_in_the_way(store: SqliteRecordStore, tmp_path: Path) -> None:
    # The wait of a busy checkpoint is shortened, so that the test need not last ten seconds.
    original = store._connect

    def impatient() -> sqlite3.Connection:
        connection = original()
        connection.execute("PRAGMA busy_timeout = 50")
        return connection

    store._connect = impatient  # type: ignore[method-assign]
    await create(store, "c")
    reading, go = threading.Event(), threading.Event()

    async def slow(txn: Reader) -> None:
        await txn.cube("c")
        reading.set()
        assert go.wait(30)

    task = asyncio.create_task(store.read(slow))
    assert await asyncio.to_thread(reading.wait, 30)
    await commit(store, "c", memory("a"))
    assert not await store.compact()
    assert (tmp_path / "record.sqlite-wal").stat().st_size > 0
    go.set()
    await task
    assert await store.compact()
    assert (tmp_path / "record.sqlite-wal").stat().st_size == 0


async def test_an_error_of_the_disk_that_ends_a_read_is_the_one_that_is_told(store: SqliteRecordStore) -> None:
    key = await create(store, "c", memory("a"))

    async def fails(txn: Reader) -> None:
        # As SQLite itself does after some errors (sqlite.org/lang_transaction.html, section 3).
        connection_of(txn).execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    for _ in range(5):
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            await store.read(fails)
    assert len(await store.read(lambda txn: txn.list_versions(key, Kind.MEMORY, 0, 9))) == 1


# Snapshots


async def test_a_commit_between_two_statements_of_a_read_is_not_seen_by_it(store: SqliteRecordStore) -> None:
    key = await create(store, "c")
    reading, go = threading.Event(), threading.Event()

    async def look(txn: Reader) -> tuple[int, int, int]:
        cube = await txn.cube("c")
        reading.set()
        assert go.wait(30)
        again = await txn.cube("c")
        assert cube is not None
        assert again is not None
        return cube.revision, again.revision, len(await txn.list_versions(key, Kind.MEMORY, 0, 9))

    task = asyncio.create_task(store.read(look))
    assert await asyncio.to_thread(reading.wait, 30)
    assert await commit(store, "c", memory("a")) == 2
    go.set()
    assert await task == (1, 1, 0)


# The schema


async def test_an_empty_file_gets_the_whole_schema(tmp_path: Path) -> None:
    (tmp_path / "record.sqlite").touch()
    store = SqliteRecordStore(str(tmp_path))
    await store.open()
    await create(store, "c")
    await store.close()
    with sqlite3.connect(tmp_path / "record.sqlite") as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        (version,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    assert tables - {"sqlite_sequence"} == TABLES
    assert version == len(MIGRATIONS)


async def test_a_record_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "record.sqlite") as db:
        db.execute("PRAGMA user_version = 999")
        db.execute("CREATE TABLE of_the_future (x)")
    db.close()
    store = SqliteRecordStore(str(tmp_path))
    with pytest.raises(SetupError) as raised:
        await store.open()
    await store.close()
    assert "has format 999; this server, " in raised.value.message
    assert raised.value.remedy.startswith("Start the newer server that wrote it")
    with sqlite3.connect(tmp_path / "record.sqlite") as db:
        assert [name for (name,) in db.execute("SELECT name FROM sqlite_master")] == ["of_the_future"]
    db.close()


def test_a_migration_that_fails_leaves_the_version_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1)"
    monkeypatch.setattr("memos_server.graph_dbs.sqlite.schema.MIGRATIONS", [*MIGRATIONS, broken])
    db = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrate(db)
    if db.in_transaction:
        db.execute("ROLLBACK")
    assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)
    db.close()


# Damage


async def test_a_file_that_is_no_database_is_named_as_damaged(tmp_path: Path) -> None:
    (tmp_path / "record.sqlite").write_bytes(b"this is no database" * 500)
    store = SqliteRecordStore(str(tmp_path))
    with pytest.raises(MipError) as raised:
        await store.open()
    await store.close()
    assert raised.value.reason == "DATA_CORRUPT"
    assert "record.sqlite" in raised.value.message
    assert "backup" in raised.value.message


async def test_the_check_names_an_index_that_misses_a_row(store: SqliteRecordStore) -> None:
    await create(store, "c", memory("a"))

    async def damage(txn: Writer) -> None:
        db = connection_of(txn)
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'IS NOT NULL', 'IS NULL') WHERE name = 'items_source'")
        db.execute("PRAGMA writable_schema = RESET")

    await store.write(damage)
    found = await store.check()
    assert any("items_source" in line for line in found), found


async def test_the_check_names_a_page_that_was_overwritten(tmp_path: Path) -> None:
    store = SqliteRecordStore(str(tmp_path))
    await store.open()
    await create(store, "c", *[memory(f"m{number}", "x" * 500) for number in range(200)])
    assert await store.compact()
    await store.close()
    path = tmp_path / "record.sqlite"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 3 * 4096] = b"\xff" * (3 * 4096)
    path.write_bytes(data)
    again = SqliteRecordStore(str(tmp_path))
    await again.open()
    try:
        found = await again.check()
    finally:
        await again.close()
    assert found
    assert all(isinstance(line, str) and line for line in found)


# Group commit


async def test_waiting_writes_share_one_transaction(store: SqliteRecordStore) -> None:
    held = Held()
    first = asyncio.create_task(store.write(held))
    await held.running()
    commits = 0

    def count(statement: str) -> None:
        nonlocal commits
        commits += statement == "COMMIT"

    assert store._writer is not None
    store._writer.set_trace_callback(count)
    others = [asyncio.create_task(store.write(audit)) for _ in range(50)]
    await asyncio.sleep(0)
    held.go.set()
    assert await first == "done"
    assert await asyncio.gather(*others) == ["written"] * 50
    store._writer.set_trace_callback(None)
    assert commits == 2
    assert await methods(store) == ["m"] * 50 + ["held"]


async def test_a_transaction_that_cannot_be_committed_fails_all_of_its_pieces(
    store: SqliteRecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    first = asyncio.create_task(store.write(held))
    await held.running()

    async def breaks(txn: Writer) -> None:
        connection_of(txn).execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    tasks = [asyncio.create_task(store.write(work)) for work in (audit, breaks, audit)]
    await asyncio.sleep(0)
    held.go.set()
    assert await first == "done"
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(result) for result in results] == ["disk I/O error"] * 3
    assert await methods(store) == ["held"]
    # The keys that the lost pieces took are given again, and the store goes on.
    await create(store, "c", memory("a"))
    assert await store.write(audit) == "written"


async def test_a_full_disk_fails_the_write_and_loses_nothing_else(store: SqliteRecordStore) -> None:
    key = await create(store, "c", memory("a"))

    async def limit(txn: Writer) -> None:
        pages = connection_of(txn).execute("PRAGMA page_count").fetchone()[0]
        connection_of(txn).execute(f"PRAGMA max_page_count = {pages + 5}")

    await store.write(limit)
    with pytest.raises((sqlite3.OperationalError, MipError), match="full"):
        await commit(store, "c", memory("b", "x" * 200_000))

    async def unlimit(txn: Writer) -> None:
        connection_of(txn).execute("PRAGMA max_page_count = 1000000")

    await store.write(unlimit)
    assert await commit(store, "c", memory("b", "x" * 200_000)) == 2
    rows = await store.read(lambda txn: txn.list_versions(key, Kind.MEMORY, 0, 9))
    assert [(row.id, len(row.payload)) for row in rows] == [("a", 1), ("b", 200_000)]
    assert await store.check() == []


async def test_work_that_waits_for_something_else_is_refused(store: SqliteRecordStore) -> None:
    async def waits(txn: Writer) -> None:
        await txn.put_audit(AuditRow(1, "p", "lost", "r", "OK"))
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="must not wait"):
        await store.write(waits)
    assert await methods(store) == []


async def test_a_cancelled_caller_does_not_stop_its_write(store: SqliteRecordStore) -> None:
    held = Held()
    first = asyncio.create_task(store.write(held))
    await held.running()
    second = asyncio.create_task(store.write(audit))
    await asyncio.sleep(0)
    for task in (first, second):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    held.go.set()
    assert await store.write(audit) == "written"
    assert await methods(store) == ["m", "m", "held"]


async def test_the_numbers_of_a_failed_piece_are_not_needed_by_the_next(store: SqliteRecordStore) -> None:
    await create(store, "c")

    async def fails(txn: Writer) -> None:
        await append(txn, "c", [memory("a"), memory("b")])
        raise ValueError

    held = Held()
    first = asyncio.create_task(store.write(held))
    await held.running()
    failing = asyncio.create_task(store.write(fails))
    next_one = asyncio.create_task(commit(store, "c", memory("d"), memory("e")))
    await asyncio.sleep(0)
    held.go.set()
    await first
    with pytest.raises(ValueError):
        await failing
    assert await next_one == 2
    cube = await store.read(lambda txn: txn.cube("c"))
    assert cube is not None
    changes = await store.read(lambda txn: txn.changes(cube.key, 2, -1, 9))
    assert [(row.sequence, row.version.id) for row in changes] == [(0, "d"), (1, "e")]


# The end


async def test_closing_finishes_the_writes_that_wait_and_refuses_later_ones(tmp_path: Path) -> None:
    store = SqliteRecordStore(str(tmp_path))
    await store.open()
    held = Held()
    first = asyncio.create_task(store.write(held))
    await held.running()
    waiting = [asyncio.create_task(store.write(audit)) for _ in range(200)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0.05)
    late = asyncio.create_task(store.write(audit))
    await asyncio.sleep(0.05)
    held.go.set()
    with pytest.raises(MipError) as raised:
        await asyncio.wait_for(late, 10)
    assert raised.value.reason == "SHUTTING_DOWN"
    assert await asyncio.gather(first, *waiting) == ["done", *["written"] * 200]
    await closing
    with pytest.raises(MipError) as raised:
        await store.write(audit)
    assert raised.value.reason == "SHUTTING_DOWN"
    again = SqliteRecordStore(str(tmp_path))
    await again.open()
    assert len(await methods(again)) == 201
    await again.close()


async def test_a_write_that_comes_after_the_writers_last_look_is_not_left_waiting(tmp_path: Path) -> None:
    store = SqliteRecordStore(str(tmp_path))
    await store.open()
    # `close` waits for the writer's thread in the loop's executor; a busy one lets the thread end long before.
    busy = threading.Event()
    executor = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(executor)
    blocker = asyncio.get_running_loop().run_in_executor(None, busy.wait, 30)
    (writer,) = (thread for thread in threading.enumerate() if thread.name == "record-write")
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    writer.join(10)
    late = asyncio.create_task(store.write(audit))
    await asyncio.sleep(0.05)
    busy.set()
    await blocker
    await closing
    with pytest.raises(MipError) as raised:
        await asyncio.wait_for(late, 5)
    assert raised.value.reason == "SHUTTING_DOWN"


async def test_closing_twice_and_without_opening_is_harmless(tmp_path: Path) -> None:
    store = SqliteRecordStore(str(tmp_path))
    await store.close()
    store = SqliteRecordStore(str(tmp_path))
    await store.open()
    await store.close()
    await store.close()


async def test_a_value_that_is_no_text_is_reported_as_damage(tmp_path: Path) -> None:
    store = SqliteRecordStore(str(tmp_path))
    await store.open()

    async def make(txn: Writer) -> None:
        await txn.put_principal("ann", "Ann", 1)

    await store.write(make)
    await store.close()
    with sqlite3.connect(tmp_path / "record.sqlite") as db:
        db.execute("UPDATE principals SET display_name = CAST(x'ff' AS TEXT)")
    db.close()
    store = SqliteRecordStore(str(tmp_path))
    await store.open()
    with pytest.raises(MipError) as raised:
        await store.read(lambda txn: txn.principals(0, 10))
    assert raised.value.reason == "DATA_CORRUPT"
    await store.close()


async def test_the_record_and_its_log_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    store = SqliteRecordStore(str(tmp_path))
    await store.open()
    modes = _modes(tmp_path)
    await store.close()
    assert modes == {"record.sqlite": 0o600, "record.sqlite-wal": 0o600, "record.sqlite-shm": 0o600}


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("record.sqlite*")}
