"""The newest heads that a client has seen: what makes a cut or rewritten log show.

A server can shorten or rewrite a log so that it is consistent in itself; it shows only against a head that somebody
else remembers. Every mutation's response carries the head, so the client does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from memos_sdk.errors import HeadMismatch, UsageError

if sys.platform == "win32":
    import errno
    import msvcrt

    def _wait_for(lock: int) -> None:
        """Locks an open file for this process alone; closing it lets it go."""
        while True:
            try:
                msvcrt.locking(lock, msvcrt.LK_LOCK, 1)
                return
            except OSError as error:
                # After ten tries, one a second.
                if error.errno != errno.EDEADLK:
                    raise
else:
    import fcntl

    def _wait_for(lock: int) -> None:
        """Locks an open file for this process alone; closing it lets it go."""
        fcntl.flock(lock, fcntl.LOCK_EX)


_REMEDY = (
    "Verify the cube with a head that is known to be right, and compare the log with a copy of it. Where a backup was"
    " restored on purpose, forget the head: client.heads.forget(uid)."
)


class Head(NamedTuple):
    """The tip of a cube's log: its revision and the digest of its commit, 32 bytes."""

    revision: int
    digest: bytes


class HeadStore:
    """Remembers the newest head of each cube by the cube's uid, in memory and optionally in a file.

    Several clients and threads may share a store; several processes may share a file, beside which `.lock` keeps them
    apart.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        """Opens the store.

        Args:
            path: A JSON file to read and keep; None keeps the heads in memory only.
        """
        self._path = None if path is None else Path(path).expanduser()
        self._lock = threading.Lock()
        self._heads: dict[str, Head] = self._read()

    def get(self, cube_uid: str) -> Head | None:
        """Returns the newest head seen of a cube; None when none was."""
        with self._lock:
            return self._heads.get(cube_uid)

    def known(self) -> dict[str, Head]:
        """Returns the newest head seen of each cube, by the cube's uid."""
        with self._lock:
            return dict(self._heads)

    def forget(self, cube_uid: str) -> bool:
        """Forgets the head of a cube whose log went back on purpose, as after a backup was restored; what comes next is
        remembered anew. Until then a log that was cut or rewritten does not show.

        Another store that shares the file and has the head in memory goes on to remember it.

        Args:
            cube_uid: The cube's uid.

        Returns:
            Whether there was one.
        """
        with self._lock, self._alone():
            stored = self._read()
            there = self._heads.pop(cube_uid, None) or stored.get(cube_uid)
            if there is None:
                return False
            stored.pop(cube_uid, None)
            self._write(stored)
            return True

    def observe(self, cube_uid: str, revision: int, digest: bytes, parent_digest: bytes) -> None:
        """Takes in the commit that a mutation made.

        Args:
            cube_uid: The cube's uid.
            revision: The commit's revision.
            digest: The commit's digest.
            parent_digest: The digest of the commit before.

        Raises:
            HeadMismatch: The commit does not continue the head that was seen before it.
        """
        if not cube_uid or revision <= 0 or not digest:
            return
        with self._lock:
            known = self._heads.get(cube_uid)
            if known is not None:
                self._compare(cube_uid, known, revision, digest, parent_digest)
                # A replayed request, or an answer that another thread's overtook.
                if revision <= known.revision:
                    return
            self._heads[cube_uid] = Head(revision, digest)
            with self._alone():
                self._write(self._read())

    @staticmethod
    def _compare(cube_uid: str, known: Head, revision: int, digest: bytes, parent_digest: bytes) -> None:
        rewritten = (revision == known.revision and digest != known.digest) or (
            revision == known.revision + 1 and parent_digest != known.digest
        )
        if rewritten:
            raise HeadMismatch(
                f"revision {revision} does not continue the log that this client has seen",
                reason="HEAD_MISMATCH",
                remedy=_REMEDY,
                metadata={
                    "cube_uid": cube_uid,
                    "seen_revision": str(known.revision),
                    "seen_digest": known.digest.hex(),
                    "received_digest": digest.hex(),
                },
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other processes from changing the file between its being read and written.

        The lock is on a file beside it, which stays: the file itself is replaced, and with it what a lock is on.
        """
        if self._path is None:
            yield
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _wait_for(lock)
            yield
        finally:
            os.close(lock)

    def _read(self) -> dict[str, Head]:
        if self._path is None:
            return {}
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            return {uid: Head(int(entry["revision"]), bytes.fromhex(entry["digest"])) for uid, entry in stored.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Forgetting the heads silently would defeat their purpose.
            raise UsageError(
                f"the remembered heads in {self._path} cannot be read: {error}",
                reason="HEADS_UNREADABLE",
                remedy="Restore the file, or delete it to remember anew from now on.",
            ) from error

    def _write(self, stored: dict[str, Head]) -> None:
        """Writes what this store knows, and what of the file's is newer."""
        if self._path is None:
            return
        # Another process may have seen newer heads of other cubes meanwhile.
        for uid, head in stored.items():
            if uid not in self._heads or head.revision > self._heads[uid].revision:
                self._heads[uid] = head
        text = json.dumps(
            {uid: {"revision": head.revision, "digest": head.digest.hex()} for uid, head in self._heads.items()},
            indent=1,
        )
        handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, self._path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
