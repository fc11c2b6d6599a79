"""`memos restore`: a data folder from a backup, every file verified before any of it appears."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from memos_server import backup_manifest
from memos_server.backup import Progress, check_room, explained, staging
from memos_server.backup_manifest import RECORD, Manifest, copy_file
from memos_server.configs.data_folder import DataFolder
from memos_server.configs.errors import SetupError
from memos_server.graph_dbs.sqlite.copying import copied_cubes, copied_version

_ANOTHER = "Restore another backup, or copy this one again from where it was whole."


def restore(
    source: Path,
    target: Path,
    *,
    new_keys: bool = False,
    expect: str = "",
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Makes a data folder from a backup.

    Args:
        source: The backup.
        target: The data folder to make; it must not exist, or be empty.
        new_keys: True leaves the backup's keys out: the server makes new ones, and no token issued so far opens it.
        expect: The SHA-256 that the backup's manifest must have; empty expects none.
        progress: Called with the bytes copied and the bytes in all.

    Returns:
        What the backup holds.

    Raises:
        SetupError: The backup is damaged or newer, and what of it; the target is in use; the disk refuses. Then there
            is nothing under the target's name.
    """
    source, target = (Path(os.path.abspath(path.expanduser())) for path in (source, target))
    manifest = backup_manifest.read(source, expect)
    if target.is_relative_to(source):
        raise SetupError(f"The data folder {target} would lie in the backup.", "Name a folder elsewhere with --data.")
    with explained("data folder", target):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    done = 0

    def moved(count: int) -> None:
        nonlocal done
        done += count
        progress(done, manifest.size)

    with staging(target, "data folder") as place:
        check_room("data folder", place, manifest.size)
        for name, entry in manifest.files.items():
            if new_keys and name.startswith("keys/"):
                continue
            try:
                copied = copy_file(source / name, place, name, moved)
            except FileNotFoundError as error:
                raise SetupError(f"The backup {source} lacks {name}.", _ANOTHER) from error
            if copied != entry:
                raise SetupError(f"{source / name} is damaged: it does not have its size and SHA-256.", _ANOTHER)
        _check_record(place / RECORD, manifest)
        # Last: without it no server starts in the folder.
        DataFolder(place).write_format(manifest.format, manifest.writer)
    return manifest


def _check_record(record: Path, manifest: Manifest) -> None:
    try:
        if copied_version(record) != manifest.format:
            raise SetupError("The backup's record is not of the format that its manifest says.", _ANOTHER)
        cubes = copied_cubes(record)
    except sqlite3.DatabaseError as error:
        raise SetupError(f"The backup's record is damaged: {error}.", _ANOTHER) from error
    for found, stated in zip(cubes, manifest.cubes, strict=False):
        if found != stated:
            raise SetupError(f"cubes/{found.id} has not the head that the backup's manifest says.", _ANOTHER)
    if len(cubes) != len(manifest.cubes):
        raise SetupError("The backup's record has not the cubes that its manifest says.", _ANOTHER)
