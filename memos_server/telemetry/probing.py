"""Tries whether a folder can be used: it is the one that was there before, and takes new bytes."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from memos_server.errors import MipError

_PROBE_BYTES = 4096


def try_folder(folder: Path) -> None:
    """Writes a few bytes into a folder and takes them back; blocks, for well below a millisecond on a local disk.

    Where the system can, the file never has a name (O_TMPFILE), and as it is gone at once nothing reaches the disk. It
    still needs the space, the right to write and a disk that answers.

    Raises:
        MipError: BACKEND_UNAVAILABLE or STORAGE_FULL; the message says what is wrong and what to do.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".probe-") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as error:
        raise explained(folder, error) from error


def try_file(path: Path, known: tuple[int, int]) -> None:
    """Checks that a file that the server holds open is still the one in its folder.

    A file that was removed or replaced while it is open goes on taking writes, which are lost when it is closed.

    Args:
        path: The file.
        known: Its device and inode number, as `identity` returned them.

    Raises:
        MipError: BACKEND_UNAVAILABLE.
    """
    try:
        now = identity(path)
    except OSError as error:
        raise explained(path, error) from error
    if now != known:
        raise MipError(
            "BACKEND_UNAVAILABLE",
            f"{path} was replaced while the server uses it; stop the server, put the right file there and start again",
        )


def identity(path: Path) -> tuple[int, int]:
    """Returns what tells a file from another of the same name: the numbers of device and inode."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def explained(path: Path, error: OSError) -> MipError:
    """Returns what an error of the file system means to the operator."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MipError("STORAGE_FULL", f"the disk of {path} is full; free some space there")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return MipError("BACKEND_UNAVAILABLE", f"{path} is gone; stop the server and restore the folder from a backup")
    if error.errno == errno.EROFS:
        return MipError(
            "BACKEND_UNAVAILABLE", f"the disk of {path} is read-only; look for its errors in the system log"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return MipError("BACKEND_UNAVAILABLE", f"{path} cannot be used by this user; correct its owner and mode")
    return MipError("BACKEND_UNAVAILABLE", f"{path} cannot be used: {error.strerror}")
