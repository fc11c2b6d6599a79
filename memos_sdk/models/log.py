"""The log of a cube: commits, their changes, what a watch delivers, and the verdict on the chain."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator

from memos_sdk._gen.mip import v1 as mip
from memos_sdk.models.view import View


class Commit(View[mip.Commit]):
    """An entry of a cube's log."""

    __slots__ = ()
    _shown = ("revision", "cause", "principal")

    @property
    def name(self) -> str:
        """The name, `cubes/{cube}/commits/{revision}`."""
        return self._message.name

    @property
    def revision(self) -> int:
        """The revision: 1 for the first commit, one more for each."""
        return self._message.revision

    @property
    def digest(self) -> bytes:
        """SHA-256 over the sealed header, 32 bytes."""
        return self._message.digest

    @property
    def parent_digest(self) -> bytes:
        """The digest of the commit before; empty for the first."""
        return self._message.parent_digest

    @property
    def principal(self) -> str:
        """Who made the commit."""
        return self._message.principal

    @property
    def cause(self) -> str:
        """Why."""
        return self._message.cause

    @property
    def create_time(self) -> datetime.datetime | None:
        """When, in UTC."""
        return self._message.create_time

    @property
    def request_id(self) -> str:
        """The request_id of the call."""
        return self._message.request_id

    @property
    def change_count(self) -> int:
        """The number of changes that the reader may see."""
        return self._message.change_count


class Change(View[mip.Change]):
    """What one commit did to one item."""

    __slots__ = ()
    _shown = ("kind", "name")

    @property
    def kind(self) -> mip.ChangeKind:
        """What was done."""
        return self._message.kind

    @property
    def name(self) -> str:
        """The item's name within the cube, such as `memories/m1`; empty for the cube itself."""
        return self._message.name


@dataclasses.dataclass(frozen=True)
class WatchEvent:
    """One commit as a watch delivers it, whole.

    Attributes:
        commit: The commit.
        changes: Its changes that the reader may see.
    """

    commit: Commit
    changes: tuple[Change, ...]

    def __iter__(self) -> Iterator[Change]:
        """Iterates over the changes."""
        return iter(self.changes)


class Verification(View[mip.VerifyCubeResponse]):
    """The verdict on a cube's log; true when nothing was found."""

    __slots__ = ()
    _shown = ("valid", "head_revision", "findings")

    def __bool__(self) -> bool:
        """Returns `valid`."""
        return self._message.valid

    @property
    def valid(self) -> bool:
        """True when nothing was found."""
        return self._message.valid

    @property
    def head_revision(self) -> int:
        """The revision of the head."""
        return self._message.head_revision

    @property
    def head_digest(self) -> bytes:
        """The digest of the head, 32 bytes."""
        return self._message.head_digest

    @property
    def findings(self) -> tuple[mip.Finding, ...]:
        """What does not fit, the first 1,000."""
        return tuple(self._message.findings)

    @property
    def commits_checked(self) -> int:
        """The number of commits that were checked."""
        return self._message.commits_checked
