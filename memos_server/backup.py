"""`memos backup`: a copy of a data folder while its server runs, whole and verified, or none at all.

The record is copied as one transaction sees it, so the copy holds everything that was acknowledged before the backup
began; the blobs that it names follow. Everything is written and synced under a temporary name beside the destination,
the manifest last, and appears under its own name by one rename.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from memos_server.backup_manifest import RECORD, Entry, Manifest, copy_file, digest_of, may_hold, megabytes
from memos_server.blob_stores.filesystem import blob_path
from memos_server.configs.data_folder import BACKUP_MANIFEST, DataFolder, Format, refuse_newer
from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import fsync_folder, write_file
from memos_server.configs.settings import Settings
from memos_server.errors import MipError
from memos_server.graph_dbs.sqlite.copying import (
    CopiedBlob,
    copied_blobs,
    copied_cubes,
    copied_damage,
    copied_version,
    copy_record,
    holds_blob,
)
from memos_server.graph_dbs.sqlite.files import settle

Progress = Callable[[int, int], None]
"""Takes the bytes done and the bytes in all."""

_ATTEMPTS: Final = 5
_SPARE_BYTES: Final = 2**24
"""What must be free beside the bytes of the files: the manifest, folders, the file system's own."""


class _PurgedMeanwhileError(Exception):
    """A blob that the copied record names was purged before it could be copied."""


def make(settings: Settings, target: Path, progress: Progress = lambda done, total: None) -> Manifest:
    """Makes a backup of a data folder; its server may run or not.

    Args:
        settings: The settings of the folder's server.
        target: The folder to make; it must not exist, the one above it must.
        progress: Called with the bytes copied and the bytes in all.

    Returns:
        What the backup holds.

    Raises:
        SetupError: It cannot be made, and why; then nothing is left of it.
    """
    folder = DataFolder(settings.data)
    target = Path(os.path.abspath(target.expanduser()))
    _check_backends(settings)
    with explained("backup", target):
        stated = folder.check()
        found = folder.record.exists()
    if stated is None or not found:
        raise SetupError(f"{folder.path} is no data folder with a record.", "Name the server's folder with --data.")
    if target.is_relative_to(folder.path):
        raise SetupError(
            f"The backup {target} would lie in the data folder itself.",
            "Name a folder elsewhere, best on another disk.",
        )
    with staging(target, "backup") as place:
        for _ in range(_ATTEMPTS):
            try:
                manifest = _copy(folder, stated, place, progress)
            except _PurgedMeanwhileError:
                # What was purged meanwhile must not be in the copy: it is made anew, without it.
                shutil.rmtree(place)
                place.mkdir(mode=0o700)
                continue
            write_file(place / BACKUP_MANIFEST, manifest.encode())
            return manifest
        raise SetupError("Blobs were purged all the time while the backup was made.", "Try again when that is over.")


def _check_backends(settings: Settings) -> None:
    for section, own in (("record", "sqlite"), ("blobs", "filesystem")):
        backend = getattr(settings, section).backend
        if backend != own:
            raise SetupError(
                f"The {section} of this server are kept by {backend}, not in the data folder.",
                f"Back them up with the tools of {backend}; `memos backup` copies what lies in the folder.",
            )


@contextmanager
def staging(target: Path, what: str) -> Iterator[Path]:
    """Makes a folder (0700) beside `target`, which takes its name when the block ends; after an error it is removed.

    Raises:
        SetupError: The target exists, or the disk refuses.
    """
    with explained(what, target):
        taken = os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir()))
    if taken:
        raise SetupError(f"{target} exists already.", "Name a folder that does not exist yet, or an empty one.")
    if os.path.ismount(target):
        raise SetupError(f"{target} is a mount point, which nothing can take the place of.", "Name a folder in it.")
    place = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    with explained(what, target):
        try:
            place.mkdir(mode=0o700)
            try:
                yield place
                for folder, _, _ in os.walk(place):
                    fsync_folder(Path(folder))
                os.rename(place, target)
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
            fsync_folder(target.parent)
        except FileNotFoundError as error:
            if target.parent.is_dir():
                raise
            raise SetupError(f"The folder {target.parent} does not exist.", "Make it, or name another one.") from error


@contextmanager
def explained(what: str, target: Path) -> Iterator[None]:
    """Turns what disk and database refuse into a SetupError.

    Args:
        what: What is being made, such as `backup`.
        target: Where.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _full(what, target) from error
        raise SetupError(
            f"The {what} {target} cannot be made: {error.filename or 'a file'}: {error.strerror}.",
            "Check the path, its owner and its permissions.",
        ) from error
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise _full(what, target) from error
        raise SetupError(f"The {what} {target} cannot be made: {error}.", "Run `memos doctor`; try again.") from error
    except sqlite3.DatabaseError as error:
        raise SetupError(
            f"The record is damaged: {error}.", "Restore an earlier backup; see `memos doctor`."
        ) from error


def _full(what: str, target: Path) -> SetupError:
    return SetupError(f"The disk has no room for the {what} {target}.", "Free some space, or name another disk.")


def check_room(what: str, target: Path, needed: int) -> None:
    """Raises SetupError where a disk has less than the needed bytes free."""
    free = shutil.disk_usage(target.parent).free
    if free < needed + _SPARE_BYTES:
        raise SetupError(
            f"The {what} needs {megabytes(needed)}, and {megabytes(free)} are free in {target.parent}.",
            "Free some space, or name another disk.",
        )


def _copy(folder: DataFolder, stated: Format, place: Path, progress: Progress) -> Manifest:
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = place / RECORD
    files: dict[str, Entry] = {}
    check_room("backup", place, folder.record.stat().st_size)
    with closing(_opened(folder)) as live:
        (number,) = live.execute("PRAGMA user_version").fetchone()
        refuse_newer(f"The record {folder.record}", number)
        copy_record(live, record, progress)
        live.execute("ROLLBACK")
        if damage := copied_damage(record):
            raise SetupError(f"The record {folder.record} is damaged: {damage}.", "Restore an earlier backup.")
        files[RECORD] = digest_of(record)
        _copy_blobs(folder, live, place, files, progress)
    for path in _small_files(folder):
        name = str(path.relative_to(folder.path))
        files[name] = copy_file(path, place, name)
    # A record whose upgrade was cut off is older than FORMAT says, or newer than it says yet.
    return Manifest(copied_version(record), stated.writer, began, copied_cubes(record), files)


def _opened(folder: DataFolder) -> sqlite3.Connection:
    """Opens a record in one read transaction: what it reads was committed before this returns, and nothing of it after.

    Raises:
        SetupError: Commits that were acknowledged cannot be read: SQLite would go by what is left without a word.
    """
    with ExitStack() as stack:
        unused = _kept_unused(folder, stack)
        if unused:
            # As a server does before it opens the record.
            try:
                settle(folder.record)
            except MipError as error:
                raise SetupError(
                    f"{error.message}.", "Keep the folder as it is, and restore an earlier backup."
                ) from error
        # To read only: the last connection that may write moves the log into the record and removes it, and with it
        # what may yet be found in it. Where there is no log, nobody but such a one removes what SQLite makes to read.
        log = folder.record.with_name(f"{folder.record.name}-wal")
        mode = "rw" if unused and not (log.exists() and log.stat().st_size) else "ro"
        live = sqlite3.connect(f"{folder.record.as_uri()}?mode={mode}", uri=True, isolation_level=None)
        with ExitStack() as failed:
            failed.callback(live.close)
            live.execute("PRAGMA query_only = ON")
            live.execute("PRAGMA busy_timeout = 10000")
            live.execute("BEGIN")
            live.execute("SELECT count(*) FROM sqlite_master").fetchone()
            failed.pop_all()
        return live


def _kept_unused(folder: DataFolder, stack: ExitStack) -> bool:
    """Returns whether no server uses a folder; then none starts before the stack ends."""
    try:
        # It is not made here: the folder's server must be able to open it, and may be another user's.
        lock = os.open(folder.path / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    stack.callback(os.close, lock)
    try:
        # Shared: another backup is no server.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _copy_blobs(
    folder: DataFolder, live: sqlite3.Connection, place: Path, files: dict[str, Entry], progress: Progress
) -> None:
    blobs = list(copied_blobs(place / RECORD))
    done = files[RECORD].size
    total = done + sum(blob.size for blob in blobs)
    check_room("backup", place, total - done)

    def moved(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    moved(0)
    for blob in blobs:
        name = str(blob_path(blob.cube_uid, blob.digest))
        try:
            entry = copy_file(folder.path / name, place, name, moved)
        except FileNotFoundError:
            entry = Entry(-1, "")
        if entry != (blob.size, blob.digest.removeprefix("sha256:")):
            if not holds_blob(live, blob):
                raise _PurgedMeanwhileError
            raise _unsound(folder, blob, missing=entry.size < 0)
        files[name] = entry


def _unsound(folder: DataFolder, blob: CopiedBlob, *, missing: bool) -> SetupError:
    path = folder.path / blob_path(blob.cube_uid, blob.digest)
    return SetupError(
        f"The blob {blob.digest} of the cube with uid {blob.cube_uid} {'is missing' if missing else 'is damaged'} "
        f"({path}).",
        "Put its file back from an earlier backup, or purge the memories that name it (`memos purge`).",
    )


def _small_files(folder: DataFolder) -> Iterator[Path]:
    """Yields keys, certificates and settings: what a restored server needs to be the one that it was."""
    if folder.config_file.is_file():
        yield folder.config_file
    for part in (folder.token_key.parent, folder.path / "tls"):
        if part.is_dir():
            for path in sorted(part.iterdir()):
                if path.is_file() and may_hold(f"{part.name}/{path.name}"):
                    yield path
