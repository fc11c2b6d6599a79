"""Threads and transactions of the embedded record store.

One writer thread takes all waiting work, runs each piece inside a savepoint of one transaction, and commits once: many
callers share one fsync (group commit), and a piece that fails undoes only itself. Results are handed out after the
commit, so whatever was acknowledged is on disk (`synchronous=FULL`). Readers run in a few threads, each with a
connection of its own, on WAL snapshots.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, News, Reader, Writer
from memos_server.graph_dbs.sqlite.files import settle
from memos_server.graph_dbs.sqlite.moving import MovingRecord
from memos_server.graph_dbs.sqlite.probing import try_record
from memos_server.graph_dbs.sqlite.reader import KnownCubes, SqliteReader
from memos_server.graph_dbs.sqlite.schema import drop_copies, migrate
from memos_server.graph_dbs.sqlite.soundness import stray_rows
from memos_server.graph_dbs.sqlite.writer import KeyCounters, SqliteWriter
from memos_server.telemetry.probing import identity, try_folder

T = TypeVar("T")

_GROUP = 128
_PROGRESS_STEPS = 100_000
"""How often a read looks whether its caller went away, in instructions of SQLite's machine: every few milliseconds."""
_REPAIR = "stop the server, keep a copy of the folder, and restore the file from a backup or run `memos doctor`"


_Piece = tuple[Callable[[Writer], Awaitable[Any]], "asyncio.Future[Any]"]
"""What one caller wants written, and the future that it waits for."""
_Ended = tuple["asyncio.Future[Any]", Any, BaseException | None]


def _settle(ended: Sequence[_Ended]) -> None:
    for future, result, error in ended:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _run(work: Awaitable[T]) -> T:
    """Runs a coroutine that never suspends to its end."""
    coroutine = cast("Coroutine[Any, Any, T]", work)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    coroutine.close()
    raise RuntimeError("work on an embedded store must not wait for anything but the store")


class SqliteRecordStore(MovingRecord):
    """The record in `record.sqlite` of the data folder.

    Args:
        data_dir: The data folder.
        readers: Number of reader threads.
        cache_mb: Page cache of each connection, MiB.
    """

    name = "sqlite"

    def __init__(self, data_dir: str, *, readers: int = 4, cache_mb: int = 32) -> None:
        """Prepares the store; `open` touches the disk."""
        self._path = Path(data_dir) / "record.sqlite"
        self._cache_kib = cache_mb * 1024
        self._queue: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="record-read")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._writer: sqlite3.Connection | None = None
        self._generation = 0
        self._erasures = 0
        self._identity = (0, 0)

    @property
    def access_generation(self) -> int | None:
        """See RecordStore: the folder's lock makes this process the only one that writes."""
        return self._generation

    async def open(self) -> None:
        """See RecordStore."""
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(self._pool, self._open)
        self._thread = threading.Thread(target=self._write_loop, name="record-write", daemon=True)
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        # Once it is open, a record that is gone must not come back as an empty one.
        mode = "ro" if self._beside else "rwc" if self._writer is None else "rw"
        address = f"file:{quote(str(self._path.absolute()))}?mode={mode}"
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        connection.execute(f"PRAGMA cache_size = -{self._cache_kib}")
        connection.execute("PRAGMA busy_timeout = 10000")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA mmap_size = 0")
        with self._lock:
            self._connections.append(connection)
        return connection

    def _open(self) -> None:
        for path in (self._path, *(self._path.with_name(f"{self._path.name}-{part}") for part in ("wal", "shm"))):
            if os.path.lexists(path) and not path.is_file():
                raise MipError("DATA_CORRUPT", f"{path} is not a regular file; {_REPAIR}")
        settle(self._path)
        # For its owner alone, like the log beside it, which takes its mode; SQLite or the folder say what is wrong.
        with suppress(OSError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            connection = self._connect()
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            # Erased content is overwritten with zeros, so that a purge leaves nothing in free pages.
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
            migrate(connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise MipError("STORAGE_FULL", f"the disk of {self._path} is full; free some space there") from error
            # SQLite does not say why it cannot open a file; its folder may.
            try_folder(self._path.parent)
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            message = f"the record {self._path} cannot be opened ({name}); look for errors of its disk"
            raise MipError("BACKEND_UNAVAILABLE", message) from error
        except sqlite3.DatabaseError as error:
            raise MipError("DATA_CORRUPT", f"the record {self._path} is damaged ({error}); {_REPAIR}") from error
        self._writer = connection
        self._identity = identity(self._path)

    async def close(self) -> None:
        """See RecordStore."""
        # First of all, so that no write is queued behind the end, where nobody would answer it.
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, thread.join)
        self._pool.shutdown(wait=True)
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    async def news(self, cubes: Collection[str]) -> News:
        """See RecordStore; who writes here tells it himself."""

        async def heads(txn: Reader) -> dict[str, int]:
            rows = [await txn.cube(cube) for cube in cubes]
            return {row.id: row.revision for row in rows if row is not None}

        return News(self._generation, self._erasures, await self.read(heads))

    async def read(
        self, work: Callable[[Reader], Awaitable[T]], *, brief: bool = False, again: Sequence[CubeRow] = ()
    ) -> T:
        """See RecordStore."""
        del again  # a new snapshot costs nothing here
        if brief:
            return self._read(work)
        cancelled = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, work, cancelled)
        finally:
            # Where the caller went away, SQLite ends the running statement, or the next one.
            cancelled.set()

    def _read(self, work: Callable[[Reader], Awaitable[T]], cancelled: threading.Event | None = None) -> T:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            self._local.known = KnownCubes()
        connection.execute("BEGIN")
        if cancelled is not None:
            connection.set_progress_handler(cancelled.is_set, _PROGRESS_STEPS)
        try:
            return _run(work(SqliteReader(connection, self._local.known)))
        except sqlite3.OperationalError as error:
            if "decode" in str(error):
                # A value of another type than the column's, which only a hand in the file puts there.
                raise MipError("DATA_CORRUPT", f"the record {self._path} holds a value that is no text") from error
            raise
        finally:
            if cancelled is not None:
                connection.set_progress_handler(None, 0)
            # After some errors of the disk SQLite has ended the transaction itself; theirs is what is told then.
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    async def write(self, work: Callable[[Writer], Awaitable[T]]) -> T:
        """See RecordStore."""
        if self._thread is None:
            raise MipError("SHUTTING_DOWN", "the server is shutting down")
        waiting: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # A cancelled caller stops waiting; its write still happens or not as a whole, and the request_id tells which.
        waiting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._queue.put((work, waiting))
        return await asyncio.shield(waiting)

    def _write_loop(self) -> None:
        assert self._writer is not None
        keys = KeyCounters(self._writer)
        while (first := self._queue.get()) is not None:
            group = [first]
            last = False
            while len(group) < _GROUP:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                    break
                group.append(following)
            self._write_group(self._writer, keys, group)
            if last:
                break
        ended: list[_Ended] = []
        while not self._queue.empty():
            if (left := self._queue.get()) is not None:
                ended.append((left[1], None, MipError("SHUTTING_DOWN", "the server is shutting down")))
        self._hand_out(ended)

    def _hand_out(self, ended: Sequence[_Ended]) -> None:
        """Wakes all callers of a group at once: waking the loop costs more than telling one caller."""
        assert self._loop is not None
        with suppress(RuntimeError):  # a loop that is closed has no callers left
            self._loop.call_soon_threadsafe(_settle, ended)

    def _write_group(
        self,
        db: sqlite3.Connection,
        keys: KeyCounters,
        group: Sequence[_Piece],
    ) -> None:
        ended: list[_Ended] = []
        access_changed = erased = False
        try:
            db.execute("BEGIN IMMEDIATE")
            for work, future in group:
                writer = SqliteWriter(db, keys)
                db.execute("SAVEPOINT piece")
                try:
                    result = _run(work(writer))
                except Exception as error:
                    if not db.in_transaction:
                        raise
                    db.execute("ROLLBACK TO piece")
                    db.execute("RELEASE piece")
                    ended.append((future, None, error))
                else:
                    db.execute("RELEASE piece")
                    access_changed |= writer.access_changed
                    erased |= writer.erased
                    ended.append((future, result, None))
            db.execute("COMMIT")
        except Exception as error:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            with suppress(sqlite3.Error):
                keys.reload()
            ended = [(future, None, error) for _, future in group]
        self._generation += access_changed
        self._erasures += erased
        self._hand_out(ended)

    @property
    def waiting_writes(self) -> int:
        """See RecordStore."""
        return self._queue.qsize()

    async def probe(self) -> None:
        """See RecordStore."""
        # In a thread of its own: reads and writes that take long are no fault of the store.
        await asyncio.to_thread(try_record, self._path, self._identity)

    async def compact(self) -> bool:
        """See RecordStore."""

        def checkpoint() -> bool:
            connection = getattr(self._local, "checkpointer", None)
            if connection is None:
                connection = self._local.checkpointer = self._connect()
                # While it waits for readers, a checkpoint keeps writers out: it waits briefly, and is tried again.
                connection.execute("PRAGMA busy_timeout = 50")
            drop_copies(self._path)
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

        return await asyncio.get_running_loop().run_in_executor(self._pool, checkpoint)

    async def check(self) -> Sequence[str]:
        """See RecordStore."""

        def integrity() -> list[str]:
            connection = self._connect()
            rows: list[str] = []
            try:
                checked = connection.execute("PRAGMA integrity_check(100)")
                rows.extend(f"the record's file is damaged: {row[0]}" for row in checked if row[0] != "ok")
                rows.extend(stray_rows(connection))
            except sqlite3.DatabaseError as error:
                # Damage that SQLite cannot even read past.
                rows.append(f"the record's file is damaged: {self._path}: {error}")
            return rows

        return await asyncio.get_running_loop().run_in_executor(self._pool, integrity)
