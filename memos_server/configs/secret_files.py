"""Files that only their owner may read: private keys, the local admin token."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from memos_server.configs.errors import SetupError

MAX_SECRET_BYTES: Final = 65536
"""The largest secret file that is read."""


def fsync_folder(path: Path) -> None:
    """Makes the folder's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replaces a file at once: a reader sees the old bytes or the new ones; durable when it returns.

    Args:
        path: The file; its folder exists.
        data: The new bytes.
        mode: The permissions, given at creation, so that no moment exposes the bytes.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def create_secret(path: Path, data: bytes) -> None:
    """Writes a secret readable by its owner only, and its folder (0700) where it is missing.

    One that another process makes at the same time stays: read it after this, whoever made it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Servers that share a folder of keys may start together.
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not path.exists():
            write_file(path, data, 0o600)
    finally:
        os.close(folder)


def read_small(path: Path, most: int = MAX_SECRET_BYTES) -> bytes:
    """Returns at most `most` first bytes of a regular file. A pipe is not waited for, nor a device read without an end.

    Raises:
        OSError: It is absent, cannot be read, or is something else than a file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return _read(descriptor, most)
    finally:
        os.close(descriptor)


def _read(descriptor: int, most: int) -> bytes:
    data = b""
    while len(data) < most and (piece := os.read(descriptor, most - len(data))):
        data += piece
    return data


def read_secret(path: Path) -> bytes:
    """Returns the bytes of a secret file.

    Raises:
        SetupError: It is absent, no regular file, readable by others than its owner, or too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}.", "Check the path and its owner.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SetupError(f"{path} is not a regular file.", "Put the secret itself there, not a link or a device.")
        if status.st_mode & 0o077:
            raise SetupError(
                f"{path} is readable or writable by others (mode {stat.S_IMODE(status.st_mode):04o}).",
                f"Run `chmod 600 {path}`, and replace the secret if others may have read it.",
            )
        data = _read(descriptor, MAX_SECRET_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_SECRET_BYTES:
        raise SetupError(f"{path} is larger than {MAX_SECRET_BYTES} bytes.", "Check that the path names the secret.")
    return data
