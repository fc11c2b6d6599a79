"""A cube, and the sessions in it."""

from __future__ import annotations

import datetime

from memos_sdk._gen.mip import v1 as mip
from memos_sdk.models.view import View


class CubeInfo(View[mip.Cube]):
    """What the server says of a cube."""

    __slots__ = ()
    _shown = ("name", "revision", "state")

    @property
    def name(self) -> str:
        """The name, `cubes/{cube}`."""
        return self._message.name

    @property
    def uid(self) -> str:
        """The unique id."""
        return self._message.uid

    @property
    def display_name(self) -> str:
        """What the cube is called for people."""
        return self._message.display_name

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return {label.key: label.value for label in self._message.labels}

    @property
    def owner(self) -> str:
        """The principal that owns the cube."""
        return self._message.owner

    @property
    def revision(self) -> int:
        """The revision of the newest commit."""
        return self._message.revision

    @property
    def head_digest(self) -> bytes:
        """The digest of the newest commit, 32 bytes."""
        return self._message.head_digest

    @property
    def etag(self) -> str:
        """The digest of the versioned fields."""
        return self._message.etag

    @property
    def embedding_model(self) -> str:
        """The model that embeds the cube's memories; `none` for a cube without vectors."""
        return self._message.embedding_model

    @property
    def state(self) -> mip.MemoryState:
        """ACTIVE, DELETED or PURGED."""
        return self._message.state

    @property
    def create_time(self) -> datetime.datetime | None:
        """When the cube was created, in UTC."""
        return self._message.create_time

    @property
    def update_time(self) -> datetime.datetime | None:
        """The time of the newest commit, in UTC."""
        return self._message.update_time


class Session(View[mip.Session]):
    """A conversation in which memories are made."""

    __slots__ = ()
    _shown = ("name", "display_name", "state")

    @property
    def name(self) -> str:
        """The name, `cubes/{cube}/sessions/{session}`."""
        return self._message.name

    @property
    def id(self) -> str:
        """The last part of the name."""
        return self._message.name.rpartition("/")[2]

    @property
    def display_name(self) -> str:
        """What the session is called for people."""
        return self._message.display_name

    @property
    def participants(self) -> tuple[str, ...]:
        """Who takes part."""
        return tuple(self._message.participants)

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return {label.key: label.value for label in self._message.labels}

    @property
    def state(self) -> mip.MemoryState:
        """ACTIVE, or ARCHIVED once ended."""
        return self._message.state

    @property
    def create_time(self) -> datetime.datetime | None:
        """When the session was created, in UTC."""
        return self._message.create_time

    @property
    def end_time(self) -> datetime.datetime | None:
        """When the session ended; None while it goes on."""
        return self._message.end_time
