"""The log of a cube: commits, their changes, what a watch delivers, and the verdict on the chain."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING

from memos_sdk._core.convert import enum_member, generated, time_of
from memos_sdk._gen import wire
from memos_sdk.models.view import View

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


class Commit(View[wire.Commit, "mip.Commit"]):
    """An entry of a cube's log."""

    __slots__ = ()
    _type = wire.Commit
    _shown = ("revision", "cause", "principal")

    @property
    def name(self) -> str:
        """The name, `cubes/{cube}/commits/{revision}`."""
        return self._wire.name

    @property
    def revision(self) -> int:
        """The revision: 1 for the first commit, one more for each."""
        return self._wire.revision

    @property
    def digest(self) -> bytes:
        """SHA-256 over the sealed header, 32 bytes."""
        return self._wire.digest

    @property
    def parent_digest(self) -> bytes:
        """The digest of the commit before; empty for the first."""
        return self._wire.parent_digest

    @property
    def principal(self) -> str:
        """Who made the commit."""
        return self._wire.principal

    @property
    def cause(self) -> str:
        """Why."""
        return self._wire.cause

    @property
    def create_time(self) -> datetime.datetime | None:
        """When, in UTC."""
        return time_of(self._wire, "create_time")

    @property
    def request_id(self) -> str:
        """The request_id of the call."""
        return self._wire.request_id

    @property
    def change_count(self) -> int:
        """The number of changes that the reader may see."""
        return self._wire.change_count


class Change(View[wire.Change, "mip.Change"]):
    """What one commit did to one item."""

    __slots__ = ()
    _type = wire.Change
    _shown = ("kind", "name")

    @property
    def kind(self) -> mip.ChangeKind:
        """What was done."""
        return enum_member("ChangeKind", self._wire.kind)

    @property
    def name(self) -> str:
        """The item's name within the cube, such as `memories/m1`; empty for the cube itself."""
        return self._wire.name


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


class Verification(View[wire.VerifyCubeResponse, "mip.VerifyCubeResponse"]):
    """The verdict on a cube's log; true when nothing was found."""

    __slots__ = ()
    _type = wire.VerifyCubeResponse
    _shown = ("valid", "head_revision", "findings")

    def __bool__(self) -> bool:
        """Returns `valid`."""
        return self._wire.valid

    @property
    def valid(self) -> bool:
        """True when nothing was found."""
        return self._wire.valid

    @property
    def head_revision(self) -> int:
        """The revision of the head."""
        return self._wire.head_revision

    @property
    def head_digest(self) -> bytes:
        """The digest of the head, 32 bytes."""
        return self._wire.head_digest

    @property
    def findings(self) -> tuple[mip.Finding, ...]:
        """What does not fit, the first 1,000."""
        return tuple(generated(finding) for finding in self._wire.findings)

    @property
    def commits_checked(self) -> int:
        """The number of commits that were checked."""
        return self._wire.commits_checked
