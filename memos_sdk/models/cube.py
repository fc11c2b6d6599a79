"""A cube, and the sessions in it."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from memos_sdk._core.convert import enum_member, time_of
from memos_sdk._gen import wire
from memos_sdk.models.view import View

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


class CubeInfo(View[wire.Cube, "mip.Cube"]):
    """What the server says of a cube."""

    __slots__ = ()
    _type = wire.Cube
    _shown = ("name", "revision", "state")

    @property
    def name(self) -> str:
        """The name, `cubes/{cube}`."""
        return self._wire.name

    @property
    def uid(self) -> str:
        """The unique id."""
        return self._wire.uid

    @property
    def display_name(self) -> str:
        """What the cube is called for people."""
        return self._wire.display_name

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return {label.key: label.value for label in self._wire.labels}

    @property
    def owner(self) -> str:
        """The principal that owns the cube."""
        return self._wire.owner

    @property
    def revision(self) -> int:
        """The revision of the newest commit."""
        return self._wire.revision

    @property
    def head_digest(self) -> bytes:
        """The digest of the newest commit, 32 bytes."""
        return self._wire.head_digest

    @property
    def etag(self) -> str:
        """The digest of the versioned fields."""
        return self._wire.etag

    @property
    def embedding_model(self) -> str:
        """The model that embeds the cube's memories; `none` for a cube without vectors."""
        return self._wire.embedding_model

    @property
    def state(self) -> mip.MemoryState:
        """ACTIVE, DELETED or PURGED."""
        return enum_member("MemoryState", self._wire.state)

    @property
    def create_time(self) -> datetime.datetime | None:
        """When the cube was created, in UTC."""
        return time_of(self._wire, "create_time")

    @property
    def update_time(self) -> datetime.datetime | None:
        """The time of the newest commit, in UTC."""
        return time_of(self._wire, "update_time")


class Session(View[wire.Session, "mip.Session"]):
    """A conversation in which memories are made."""

    __slots__ = ()
    _type = wire.Session
    _shown = ("name", "display_name", "state")

    @property
    def name(self) -> str:
        """The name, `cubes/{cube}/sessions/{session}`."""
        return self._wire.name

    @property
    def id(self) -> str:
        """The last part of the name."""
        return self._wire.name.rpartition("/")[2]

    @property
    def display_name(self) -> str:
        """What the session is called for people."""
        return self._wire.display_name

    @property
    def participants(self) -> tuple[str, ...]:
        """Who takes part."""
        return tuple(self._wire.participants)

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return {label.key: label.value for label in self._wire.labels}

    @property
    def state(self) -> mip.MemoryState:
        """ACTIVE, or ARCHIVED once ended."""
        return enum_member("MemoryState", self._wire.state)

    @property
    def create_time(self) -> datetime.datetime | None:
        """When the session was created, in UTC."""
        return time_of(self._wire, "create_time")

    @property
    def end_time(self) -> datetime.datetime | None:
        """When the session ended; None while it goes on."""
        return time_of(self._wire, "end_time")
