"""Putting the frames of a watch together, and knowing where to go on after a break."""

from __future__ import annotations

from memos_sdk import _stubs
from memos_sdk._gen import wire
from memos_sdk.errors import DataLoss, MipError, ResourceExhausted, Unavailable
from memos_sdk.models import Change, Commit, WatchEvent


class WatchAssembler:
    """Makes whole commits of frames: a commit, its changes, an end; heartbeats between them."""

    def __init__(self, cube: str, start_revision: int) -> None:
        """Starts at a revision; 0 means the next one to be made."""
        self._cube = cube
        self._next = start_revision
        self._commit: Commit | None = None
        self._changes: list[Change] = []

    def request(self) -> wire.WatchCubeRequest:
        """Returns the request that goes on after the last whole commit; a commit that broke off is sent anew."""
        self._commit, self._changes = None, []
        return _stubs.WATCH_CUBE(name=self._cube, start_revision=self._next)

    def take(self, frame: wire.WatchCubeResponse) -> WatchEvent | None:
        """Takes a frame and returns the commit that it completes.

        Raises:
            DataLoss: A revision is missing, or the frames come in the wrong order.
        """
        kind = frame.WhichOneof("frame")
        if kind == "commit":
            revision = frame.commit.revision
            if self._commit is not None or (self._next and revision != self._next):
                raise self._gap(f"revision {revision} follows {self._next - 1}")
            self._commit, self._changes = Commit(frame.commit), []
        elif kind == "changes":
            if self._commit is None:
                raise self._gap("changes come without their commit")
            self._changes += [Change(change) for change in frame.changes.changes]
        elif kind == "end":
            revision = frame.end.revision
            if self._commit is None or revision != self._commit.revision:
                raise self._gap(f"the end of revision {revision} comes without its commit")
            event = WatchEvent(self._commit, tuple(self._changes))
            self._next, self._commit, self._changes = revision + 1, None, []
            return event
        elif kind == "heartbeat" and not self._next:
            # Nothing came yet: after a break the watch goes on from here instead of from a newer "next one".
            self._next = frame.heartbeat.revision + 1
        return None

    @staticmethod
    def judge(error: MipError) -> MipError:
        """Returns the error as the retry plan should see it: a watch that was too slow is simply opened again."""
        if isinstance(error, ResourceExhausted) and error.reason == "WATCH_TOO_SLOW":
            return Unavailable(error.message, reason=error.reason, retry_after=error.retry_after)
        return error

    def _gap(self, message: str) -> DataLoss:
        return DataLoss(
            f"the watch of {self._cube} has a gap: {message}",
            reason="WATCH_GAP",
            remedy="Watch again from the last revision that came whole.",
        )
