"""The names of objects. Every cube uid and digest is checked here before it becomes part of one.

    PREFIX/cubes/<cube uid>/blobs/<hexadecimal digest>                 a blob
    PREFIX/uploads/<cube uid>/<hexadecimal digest>/<start, 16 digits>  a piece of an unfinished upload
    PREFIX/probes/<uuid>                                               written and deleted at once, to see that it works

Uploads have a root of their own, so that looking for abandoned ones lists no blob.
"""

from __future__ import annotations

import re
from typing import Final

from memos_server.errors import MipError

_UID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_PREFIX: Final = re.compile(r"[A-Za-z0-9!_.*'()/-]{0,400}", re.ASCII)
_PIECE: Final = re.compile(
    r"uploads/([0-9a-f-]{36})/([0-9a-f]{64})/([0-9]{16})",
    re.ASCII,
)


class Keys:
    """Makes the names of objects under a prefix."""

    def __init__(self, prefix: str) -> None:
        """Sets the prefix, with or without a slash at its ends; empty for the root of the bucket.

        Raises:
            ValueError: It has other characters than those that every store takes, or a part of it is `.` or `..`.
        """
        parts = [part for part in prefix.split("/") if part]
        if not _PREFIX.fullmatch(prefix) or any(part in (".", "..") for part in parts):
            raise ValueError("prefix may have 400 letters, digits and !_.*'()-/ at most, and no part . or ..")
        self._root = "".join(f"{part}/" for part in parts)

    @property
    def root(self) -> str:
        """What all names begin with."""
        return self._root

    @property
    def all_blobs(self) -> str:
        """What the names of all blobs begin with."""
        return f"{self._root}cubes/"

    @property
    def all_uploads(self) -> str:
        """What the names of all pieces begin with."""
        return f"{self._root}uploads/"

    @property
    def all_probes(self) -> str:
        """What the names of all probes begin with."""
        return f"{self._root}probes/"

    def blobs_of(self, cube_uid: str) -> str:
        """Returns what the names of a cube's blobs begin with."""
        return f"{self.all_blobs}{_checked(cube_uid)}/"

    def uploads_of(self, cube_uid: str) -> str:
        """Returns what the names of the pieces of a cube's uploads begin with."""
        return f"{self.all_uploads}{_checked(cube_uid)}/"

    def blob(self, cube_uid: str, digest: str) -> str:
        """Returns the name of a blob.

        Raises:
            ValueError: The uid is not a lower-case UUID.
            MipError: INVALID_FIELD when the digest is none.
        """
        return f"{self.blobs_of(cube_uid)}blobs/{hexadecimal(digest)}"

    def upload(self, cube_uid: str, digest: str) -> str:
        """Returns what the names of an upload's pieces begin with; errors as in `blob`."""
        return f"{self.uploads_of(cube_uid)}{hexadecimal(digest)}/"

    def of_piece(self, key: str) -> tuple[str, str, int] | None:
        """Returns the cube uid, the digest and the start of a piece by its name; None when it names no piece."""
        found = _PIECE.fullmatch(key, len(self._root)) if key.startswith(self._root) else None
        return (found[1], f"sha256:{found[2]}", int(found[3])) if found else None


def piece_key(upload: str, start: int) -> str:
    """Returns the name of the piece that begins at a byte of an upload."""
    return f"{upload}{start:016d}"


def hexadecimal(digest: str) -> str:
    """Returns the hexadecimal part of a digest.

    Raises:
        MipError: INVALID_FIELD when it is no digest.
    """
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise MipError("INVALID_FIELD", "A digest is sha256: and 64 lower-case hexadecimal digits")
    return found[1]


def _checked(cube_uid: str) -> str:
    if not _UID.fullmatch(cube_uid):
        raise ValueError("the cube's uid is not a lower-case UUID")
    return cube_uid
