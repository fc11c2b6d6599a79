"""What a backup says of itself: `backup.json`, with the size and SHA-256 of every file and the head of every cube.

It is written last, when everything else is on disk, and it carries a checksum of itself. The checksum finds accidents;
against somebody who writes a manifest anew, keep the manifest's SHA-256 elsewhere (`memos restore --expect`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from memos_server import names
from memos_server._pb.mip.v1 import options_pb2
from memos_server.configs.data_folder import BACKUP_MANIFEST, refuse_newer
from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.graph_dbs.sqlite.copying import CopiedCube

RECORD: Final = "record.sqlite"
MAX_MANIFEST_BYTES: Final = 2**28
"""The largest manifest that is read: about a million files."""

_PIECE: Final = 2**20
_NAME: Final = re.compile(
    r"record\.sqlite|memos\.toml|(?:keys|tls)/[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
    r"|blobs/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/[0-9a-f]{2}/[0-9a-f]{64}",
    re.ASCII,
)
"""What a file in a backup may be called; so no name leads out of the folder."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ANOTHER: Final = "Restore another backup."


def may_hold(name: str) -> bool:
    """Returns whether a backup may hold a file of this name."""
    return _NAME.fullmatch(name) is not None


class Entry(NamedTuple):
    """A file of a backup: its size in bytes and its SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a backup holds.

    Attributes:
        format: The number of the data folder's format.
        writer: The server that wrote the folder.
        time: When the backup began, RFC 3339 in UTC.
        cubes: The cubes with their heads, in order of creation.
        files: Name -> entry of every file but the manifest.
    """

    format: int
    writer: str
    time: str
    cubes: list[CopiedCube]
    files: Mapping[str, Entry]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def encode(self) -> bytes:
        """Returns the manifest as JSON with its checksum."""
        body = {
            "format": self.format,
            "writer": self.writer,
            "time": self.time,
            "cubes": [cube_json(cube) for cube in self.cubes],
            "files": {name: entry._asdict() for name, entry in sorted(self.files.items())},
        }
        return json.dumps({"backup": body, "sha256": _checksum(body)}, indent=1).encode() + b"\n"


def cube_json(cube: CopiedCube) -> dict[str, Any]:
    """Returns a cube with its head as JSON values."""
    return {
        "name": names.cube_name(cube.id),
        "uid": cube.uid,
        "revision": cube.revision,
        "head_digest": cube.digest.hex(),
    }


def megabytes(count: int) -> str:
    """Returns a number of bytes for people."""
    return f"{count / 1e6:,.1f} MB"


def _checksum(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read(folder: Path, expect: str = "") -> Manifest:
    """Reads and checks the manifest of a backup.

    Args:
        folder: The backup.
        expect: The SHA-256 that the manifest must have; empty expects none.

    Raises:
        SetupError: There is none, it is damaged or not the expected one, or a newer server made it.
    """
    path = folder / BACKUP_MANIFEST
    try:
        with open_regular(path) as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        raise SetupError(
            f"{folder} is no backup: it has no {BACKUP_MANIFEST}.",
            "Name a folder that `memos backup` made; one that was interrupted cannot be used.",
        ) from error
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}.", "Make it readable by this user.") from error
    found = hashlib.sha256(text).hexdigest()
    if expect and found != expect.strip().lower():
        raise SetupError(
            f"{path} has SHA-256 {found}, not the expected one.", "Correct --expect, or restore another backup."
        )
    try:
        if len(text) > MAX_MANIFEST_BYTES:
            raise ValueError("it is too large")
        outer = json.loads(text)
        body = outer["backup"]
        if type(body["format"]) is not int or body["format"] < 1:
            raise ValueError("it has no format")
        if _checksum(body) != outer["sha256"]:
            raise ValueError("it does not match its checksum")
        writer = str(body["writer"])
        refuse_newer(f"The backup {folder}", body["format"], writer if writer.isprintable() else "")
        return _manifest(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MipError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise SetupError(f"{path} is damaged: {what}.", _ANOTHER) from error


def _manifest(body: Mapping[str, Any]) -> Manifest:
    cubes = []
    for cube in body["cubes"]:
        if not names.matches(options_pb2.FORMAT_UUID, cube["uid"]):
            raise ValueError("a cube has no uid")
        digest = bytes.fromhex(cube["head_digest"])
        cubes.append(CopiedCube(names.parse_cube(cube["name"]), cube["uid"], int(cube["revision"]), digest))
    files = {}
    for name, entry in body["files"].items():
        size, digest = entry["size"], entry["sha256"]
        if not may_hold(name):
            raise ValueError(f"a backup holds no file {name!r}")
        if type(size) is not int or size < 0 or not _DIGEST.fullmatch(digest):
            raise ValueError(f"{name} has no size and digest")
        if name.startswith("blobs/") and not name.endswith(f"/{digest[:2]}/{digest}"):
            raise ValueError(f"{name} is not called by its digest")
        files[name] = Entry(size, digest)
    if RECORD not in files:
        raise ValueError("it names no record")
    writer, time = body["writer"], body["time"]
    if not isinstance(time, str) or not isinstance(writer, str) or not (writer + time).isprintable():
        raise ValueError("it does not say what made it")
    return Manifest(body["format"], writer, time, cubes, files)


def open_regular(path: Path) -> Any:
    """Opens a regular file to read its bytes; raises OSError where there is a link, a device or none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb", buffering=0)


def digest_of(path: Path) -> Entry:
    """Returns size and SHA-256 of a file."""
    running, size = hashlib.sha256(), 0
    with open_regular(path) as file:
        while piece := file.read(_PIECE):
            running.update(piece)
            size += len(piece)
    return Entry(size, running.hexdigest())


def copy_file(source: Path, root: Path, name: str, moved: Callable[[int], None] = lambda count: None) -> Entry:
    """Copies a file durably, readable by its owner only, as the folders are that it lies in.

    Args:
        source: The file; links are not followed.
        root: The folder to copy to.
        name: The new file's name relative to it; it must not exist.
        moved: Called with the number of bytes of each piece.

    Returns:
        Its size and SHA-256.
    """
    running, size = hashlib.sha256(), 0
    with open_regular(source) as file:
        for folder in reversed(PurePosixPath(name).parents[:-1]):
            (root / folder).mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as copy:
            while piece := file.read(_PIECE):
                running.update(piece)
                size += len(piece)
                rest = memoryview(piece)
                while len(rest):
                    rest = rest[copy.write(rest) :]
                moved(len(piece))
            os.fsync(descriptor)
    return Entry(size, running.hexdigest())
