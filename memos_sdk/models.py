"""What the clients return: thin, read-only views of the protocol's messages; `.message` is the message itself."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, overload

import betterproto2

from memos_sdk._core.json_form import to_json
from memos_sdk._gen.mip import v1 as mip

__all__ = [
    "AddSummary",
    "Capabilities",
    "Change",
    "Commit",
    "CubeInfo",
    "Hit",
    "Memory",
    "Mutation",
    "Rollback",
    "SealedMemory",
    "SearchResult",
    "Session",
    "Token",
    "Traversal",
    "Verification",
    "WatchEvent",
]

MessageT = TypeVar("MessageT", bound=betterproto2.Message)


class View(Generic[MessageT]):
    """A read-only view of a message; equal when the messages are."""

    __slots__ = ("_message",)
    _shown: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: MessageT) -> None:
        """Wraps a message, without copying it."""
        self._message = message

    @property
    def message(self) -> MessageT:
        """The protocol's message."""
        return self._message

    def to_dict(self) -> dict[str, Any]:
        """Returns the message as JSON values: fields as in the protos, digests in hexadecimal, times in RFC 3339."""
        return to_json(self._message)

    def __eq__(self, other: object) -> bool:
        """Compares the messages."""
        return isinstance(other, View) and type(other) is type(self) and bool(self._message == other._message)

    def __hash__(self) -> int:
        """Hashes the message's bytes."""
        return hash(bytes(self._message))

    def __repr__(self) -> str:
        """Shows the fields that matter most."""
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
        return f"<{type(self).__name__} {shown}>"


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


class Hit(View[mip.Hit]):
    """A memory that a search found."""

    __slots__ = ()
    _shown = ("score", "memory")

    @property
    def memory(self) -> Memory:
        """The memory at the searched revision."""
        return Memory(self._message.memory or mip.Memory())

    @property
    def text(self) -> str:
        """The memory's text."""
        return self.memory.text

    @property
    def score(self) -> float:
        """The fused score; higher is better, comparable within one result."""
        return self._message.score

    @property
    def explanation(self) -> mip.Explanation | None:
        """Why the memory was found; None unless the search asked."""
        return self._message.explanation


class SearchResult(View[mip.SearchMemoriesResponse], Sequence[Hit]):
    """The hits of a search, best first: a sequence."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        """Returns a hit, or several."""
        if isinstance(index, slice):
            return [Hit(hit) for hit in self._message.hits[index]]
        return Hit(self._message.hits[index])

    def __len__(self) -> int:
        """Returns the number of hits."""
        return len(self._message.hits)

    def __repr__(self) -> str:
        """Shows the hits."""
        return f"<SearchResult {list(self)!r}>"

    @property
    def memories(self) -> list[Memory]:
        """The memories of the hits, best first."""
        return [hit.memory for hit in self]

    @property
    def unreachable(self) -> tuple[str, ...]:
        """The cubes whose backend could not be reached."""
        return tuple(self._message.unreachable)

    @property
    def stale(self) -> dict[str, int]:
        """The cubes that were searched at an older revision, and that revision."""
        return {stale.cube: stale.indexed_revision for stale in self._message.stale}

    @property
    def notices(self) -> tuple[str, ...]:
        """What was done otherwise than asked, for people."""
        return tuple(self._message.notices)

    @property
    def size_limited(self) -> bool:
        """True when hits were left off because the response would have been too large."""
        return self._message.size_limited


class Traversal(View[mip.TraverseResponse], Sequence[mip.Visit]):
    """What a walk along relations reached, nearest first: a sequence of visits."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: int) -> mip.Visit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[mip.Visit]: ...
    def __getitem__(self, index: int | slice) -> mip.Visit | Sequence[mip.Visit]:
        """Returns a visit, or several."""
        return self._message.visits[index]

    def __len__(self) -> int:
        """Returns the number of visits."""
        return len(self._message.visits)

    def __repr__(self) -> str:
        """Shows the visits."""
        return f"<Traversal {self._message.visits!r}>"

    @property
    def memories(self) -> list[Memory]:
        """The memories that were reached, nearest first."""
        return [Memory(visit.memory or mip.Memory()) for visit in self._message.visits]

    @property
    def truncated(self) -> bool:
        """True when the limit cut the walk short."""
        return self._message.truncated


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


class Capabilities(View[mip.GetCapabilitiesResponse]):
    """What a server declares."""

    __slots__ = ()
    _shown = ("server_name", "server_version", "protocol_version")

    @property
    def protocol_version(self) -> str:
        """The version of the protocol."""
        return self._message.protocol_version

    @property
    def server_name(self) -> str:
        """The software."""
        return self._message.server_name

    @property
    def server_version(self) -> str:
        """The software's version."""
        return self._message.server_version

    @property
    def features(self) -> tuple[str, ...]:
        """Optional abilities, such as `search.vector`."""
        return tuple(self._message.features)

    @property
    def embedding_models(self) -> tuple[mip.EmbeddingModel, ...]:
        """The embedding models."""
        return tuple(self._message.embedding_models)

    @property
    def limits(self) -> mip.Limits:
        """The largest requests that the server accepts."""
        return self._message.limits or mip.Limits()

    @property
    def notices(self) -> tuple[str, ...]:
        """What is missing or degraded, for people."""
        return tuple(self._message.notices)


class Token(View[mip.IssueTokenResponse]):
    """A token, shown once."""

    __slots__ = ()
    _shown = ("token_id", "expire_time")

    def __str__(self) -> str:
        """Returns the token itself."""
        return self._message.token

    @property
    def token(self) -> str:
        """The token, for `authorization: Bearer`."""
        return self._message.token

    @property
    def token_id(self) -> str:
        """The token's id, for revoking it."""
        return self._message.token_id

    @property
    def expire_time(self) -> datetime.datetime | None:
        """When it expires, in UTC."""
        return self._message.expire_time


@dataclasses.dataclass(frozen=True)
class Mutation:
    """What a change of several memories, relations or a whole cube did.

    Attributes:
        commit: The commit.
        memories: The memories concerned, where the server returns them.
        relations: The relations concerned, where the server returns them.
        index_pending: True when search does not see the change yet.
        derived: After a purge: what is known to derive from the erased content and stays, names.
        compaction_job: After a purge: the job that erases the bytes from disk.
    """

    commit: Commit
    memories: tuple[Memory, ...] = ()
    relations: tuple[mip.Relation, ...] = ()
    index_pending: bool = False
    derived: tuple[str, ...] = ()
    compaction_job: str = ""


@dataclasses.dataclass(frozen=True)
class Rollback:
    """What a rollback did.

    Attributes:
        commit: The commit that the rollback made.
        cube: The cube afterwards.
        skipped_purges: Purged memories that stay purged: name -> revision of the purging commit, the first 1,000.
        index_pending: True when search does not see the change yet.
    """

    commit: Commit
    cube: CubeInfo
    skipped_purges: Mapping[str, int]
    index_pending: bool


@dataclasses.dataclass(frozen=True)
class AddSummary:
    """What `add_many` did.

    Attributes:
        added: The number of memories added.
        commits: The commits, one a slice.
        names: The names of the memories, in the order of the input.
        index_pending: True when search does not see all of them yet.
    """

    added: int
    commits: tuple[Commit, ...]
    names: tuple[str, ...]
    index_pending: bool


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
