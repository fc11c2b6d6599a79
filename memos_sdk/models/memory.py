"""A memory at one version, and the sealed bytes that its digests are computed over."""

from __future__ import annotations

import datetime
import hashlib
from typing import TYPE_CHECKING, Any

from memos_sdk._core.convert import as_json, enum_member, generated, generated_from, time_of
from memos_sdk._gen import wire
from memos_sdk.models.log import Commit
from memos_sdk.models.view import View

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


class Memory(View[wire.Memory, "mip.Memory"]):
    """A memory as the server returned it, at one version.

    Attributes:
        commit: The commit of the call that returned the memory, when that call made one.
        index_pending: True when that call's change is safe, but search does not see it yet.
    """

    __slots__ = ("commit", "index_pending")
    _type = wire.Memory
    _shown = ("name", "text", "state", "revision")
    _beside = ("commit", "index_pending")

    def __init__(
        self, message: wire.Memory | mip.Memory, *, commit: Commit | None = None, index_pending: bool = False
    ) -> None:
        """Wraps a message."""
        super().__init__(message)
        self.commit = commit
        self.index_pending = index_pending

    def __str__(self) -> str:
        """Returns the text."""
        return self.text

    @property
    def name(self) -> str:
        """The name, `cubes/{cube}/memories/{memory}`."""
        return self._wire.name

    @property
    def id(self) -> str:
        """The last part of the name."""
        return self._wire.name.rpartition("/")[2]

    @property
    def cube(self) -> str:
        """The name of the memory's cube."""
        return "/".join(self._wire.name.split("/")[:2])

    @property
    def uid(self) -> str:
        """The unique id, which forks and transfers keep."""
        return self._wire.uid

    @property
    def payload(self) -> str:
        """What the memory holds: `plaintext`, `activation`, `parametric`, `extension`, or empty once purged."""
        return self._wire.WhichOneof("payload") or ""

    @property
    def text(self) -> str:
        """The text of a plaintext memory, or what an extension says in words; empty for others."""
        return self._wire.plaintext.text or self._wire.extension.text

    @property
    def kind(self) -> str:
        """What sort of memory it is, a word of the application."""
        return self._wire.plaintext.kind

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags, sorted."""
        return tuple(self._wire.tags)

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return {label.key: label.value for label in self._wire.labels}

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes, parsed; empty when there are none.

        Raises:
            DataLoss: The server sent something that is no JSON.
        """
        parsed = as_json(self._wire.attributes_json) if self._wire.attributes_json else {}
        return parsed if isinstance(parsed, dict) else {"": parsed}

    @property
    def provenance(self) -> tuple[mip.Provenance, ...]:
        """Where the memory comes from."""
        return tuple(generated(entry) for entry in self._wire.provenance)

    @property
    def state(self) -> mip.MemoryState:
        """The state."""
        return enum_member("MemoryState", self._wire.state)

    @property
    def merged_into(self) -> str:
        """The name of the memory that absorbed this one."""
        return self._wire.merged_into

    @property
    def revision(self) -> int:
        """The revision of the cube whose commit made this version."""
        return self._wire.revision

    @property
    def etag(self) -> str:
        """The digest of the versioned fields, for `update(etag=…)`."""
        return self._wire.etag

    @property
    def sensitivity(self) -> mip.Sensitivity:
        """How closely the memory is held."""
        return enum_member("Sensitivity", self._wire.sensitivity)

    @property
    def owner(self) -> str:
        """The principal that owns the memory."""
        return self._wire.owner

    @property
    def session(self) -> str:
        """The session that the memory was made in; may be empty."""
        return self._wire.session

    @property
    def confidence(self) -> float | None:
        """How sure the source is, 0 to 1; None when not said."""
        return self._wire.confidence if self._wire.HasField("confidence") else None

    @property
    def valid_from(self) -> datetime.datetime | None:
        """From when on the fact holds."""
        return time_of(self._wire, "valid_from")

    @property
    def valid_until(self) -> datetime.datetime | None:
        """Until when the fact holds."""
        return time_of(self._wire, "valid_until")

    @property
    def create_time(self) -> datetime.datetime | None:
        """When the memory was added, in UTC."""
        return time_of(self._wire, "create_time")

    @property
    def update_time(self) -> datetime.datetime | None:
        """When the memory was last changed, in UTC."""
        return time_of(self._wire, "update_time")

    @property
    def vectors(self) -> tuple[mip.Vector, ...]:
        """The embeddings, when they were asked for."""
        return tuple(generated(vector) for vector in self._wire.vectors)

    def _content_copy(self) -> wire.Memory:
        """Returns a new message with the content (fields 1 to 31), unknown fields included, and the sensitivity."""
        copy = wire.Memory()
        copy.CopyFrom(self._wire)
        for field, _ in self._wire.ListFields():
            if field.number > 31 and field.name not in ("sensitivity", "vectors"):
                copy.ClearField(field.name)
        return copy


class SealedMemory(View[wire.Sealed, "mip.Sealed"]):
    """The exact bytes that a memory's digests are computed over."""

    __slots__ = ()
    _type = wire.Sealed
    _shown = ("digest",)

    @property
    def digest(self) -> bytes:
        """SHA-256 over the content's bytes."""
        return hashlib.sha256(self._wire.payload).digest()

    @property
    def commitment(self) -> bytes:
        """SHA-256(salt || SHA-256(content)): what the log holds when the bytes are the right ones."""
        return hashlib.sha256(self._wire.salt + self.digest).digest()

    def parse(self) -> mip.MemoryContent:
        """Returns the content; compare `commitment` with the log's first."""
        return generated_from(wire.MemoryContent, self._wire.payload)
