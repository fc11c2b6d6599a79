"""A memory at one version, and the sealed bytes that its digests are computed over."""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Any

import betterproto2

from memos_sdk._gen.mip import v1 as mip
from memos_sdk.models.log import Commit
from memos_sdk.models.view import View


class Memory(View[mip.Memory]):
    """A memory as the server returned it, at one version.

    Attributes:
        commit: The commit of the call that returned the memory, when that call made one.
        index_pending: True when that call's change is safe, but search does not see it yet.
    """

    __slots__ = ("commit", "index_pending")
    _shown = ("name", "text", "state", "revision")

    def __init__(self, message: mip.Memory, *, commit: Commit | None = None, index_pending: bool = False) -> None:
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
        return self._message.name

    @property
    def id(self) -> str:
        """The last part of the name."""
        return self._message.name.rpartition("/")[2]

    @property
    def cube(self) -> str:
        """The name of the memory's cube."""
        return "/".join(self._message.name.split("/")[:2])

    @property
    def uid(self) -> str:
        """The unique id, which forks and transfers keep."""
        return self._message.uid

    @property
    def payload(self) -> str:
        """What the memory holds: `plaintext`, `activation`, `parametric`, `extension`, or empty once purged."""
        return betterproto2.which_one_of(self._message, "payload")[0]

    @property
    def text(self) -> str:
        """The text of a plaintext memory, or what an extension says in words; empty for others."""
        if self._message.plaintext is not None:
            return self._message.plaintext.text
        return self._message.extension.text if self._message.extension is not None else ""

    @property
    def kind(self) -> str:
        """What sort of memory it is, a word of the application."""
        return self._message.plaintext.kind if self._message.plaintext is not None else ""

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags, sorted."""
        return tuple(self._message.tags)

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return {label.key: label.value for label in self._message.labels}

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes, parsed; empty when there are none."""
        parsed = json.loads(self._message.attributes_json) if self._message.attributes_json else {}
        return parsed if isinstance(parsed, dict) else {"": parsed}

    @property
    def provenance(self) -> tuple[mip.Provenance, ...]:
        """Where the memory comes from."""
        return tuple(self._message.provenance)

    @property
    def state(self) -> mip.MemoryState:
        """The state."""
        return self._message.state

    @property
    def merged_into(self) -> str:
        """The name of the memory that absorbed this one."""
        return self._message.merged_into

    @property
    def revision(self) -> int:
        """The revision of the cube whose commit made this version."""
        return self._message.revision

    @property
    def etag(self) -> str:
        """The digest of the versioned fields, for `update(etag=…)`."""
        return self._message.etag

    @property
    def sensitivity(self) -> mip.Sensitivity:
        """How closely the memory is held."""
        return self._message.sensitivity

    @property
    def owner(self) -> str:
        """The principal that owns the memory."""
        return self._message.owner

    @property
    def session(self) -> str:
        """The session that the memory was made in; may be empty."""
        return self._message.session

    @property
    def confidence(self) -> float | None:
        """How sure the source is, 0 to 1; None when not said."""
        return self._message.confidence

    @property
    def valid_from(self) -> datetime.datetime | None:
        """From when on the fact holds."""
        return self._message.valid_from

    @property
    def valid_until(self) -> datetime.datetime | None:
        """Until when the fact holds."""
        return self._message.valid_until

    @property
    def create_time(self) -> datetime.datetime | None:
        """When the memory was added, in UTC."""
        return self._message.create_time

    @property
    def update_time(self) -> datetime.datetime | None:
        """When the memory was last changed, in UTC."""
        return self._message.update_time

    @property
    def vectors(self) -> tuple[mip.Vector, ...]:
        """The embeddings, when they were asked for."""
        return tuple(self._message.vectors)

    def _content_copy(self) -> mip.Memory:
        """Returns a new message with the content (fields 1 to 31), unknown fields included, and the sensitivity."""
        copy = mip.Memory.parse(bytes(self._message))
        for field in ("name", "uid", "etag", "merged_into", "owner"):
            setattr(copy, field, "")
        copy.revision, copy.commitment = 0, b""
        copy.state, copy.create_time, copy.update_time = mip.MemoryState.UNSPECIFIED, None, None
        return copy


class SealedMemory(View[mip.Sealed]):
    """The exact bytes that a memory's digests are computed over."""

    __slots__ = ()
    _shown = ("digest",)

    @property
    def digest(self) -> bytes:
        """SHA-256 over the content's bytes."""
        return hashlib.sha256(self._message.payload).digest()

    @property
    def commitment(self) -> bytes:
        """SHA-256(salt || SHA-256(content)): what the log holds when the bytes are the right ones."""
        return hashlib.sha256(self._message.salt + self.digest).digest()

    def parse(self) -> mip.MemoryContent:
        """Returns the content; compare `commitment` with the log's first."""
        return mip.MemoryContent.parse(self._message.payload)
