"""What is written to a record and read from it, in the record's own terms.

Every versioned thing of a cube (its settings, a memory, a relation, a session) is an *item* with *versions*; a version
is valid in `[from_revision, to_revision)` and carries the exact bytes of the change that made it. State at a revision,
history, rollback, audit and Watch are readings of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

OPEN = 2**62
"""The `to_revision` of a version that is current."""


class Kind(IntEnum):
    """What an item is."""

    CUBE = 0
    MEMORY = 1
    RELATION = 2
    SESSION = 3


_COLLECTIONS = {Kind.MEMORY: "memories", Kind.RELATION: "relations", Kind.SESSION: "sessions"}


def relative_name(kind: Kind, id_: str) -> str:
    """Returns an item's name within its cube, such as `memories/m1`; empty for the cube itself."""
    return "" if kind is Kind.CUBE else f"{_COLLECTIONS[kind]}/{id_}"


class CubeRow(NamedTuple):
    """A cube with its head and settings.

    Attributes:
        key: The store's handle.
        id: The last part of its name.
        uid: UUID text.
        owner: Principal name.
        revision: The head's revision.
        head_digest: The head's digest.
        head_time: The head's time, microseconds since the epoch.
        create_time: The first commit's time, microseconds since the epoch.
        settings: The version of the item that holds its settings.
        forked_from: The uid of the cube that it was made from; empty for none.
    """

    key: int
    id: str
    uid: str
    owner: str
    revision: int
    head_digest: bytes
    head_time: int
    create_time: int
    settings: Version
    forked_from: str = ""


class Version(NamedTuple):
    """One version of an item.

    Attributes:
        item: The store's handle of the item; items of a cube are listed in its order, that of their creation.
        kind: What the item is.
        id: The last part of the item's name.
        uid: UUID text.
        from_revision: The revision whose commit made it.
        to_revision: The revision whose commit ended it; OPEN while current.
        state: MemoryState number.
        sensitivity: Sensitivity number.
        owner: Principal name.
        merged_into: Name relative to the cube; empty unless MERGED.
        time: Of the commit that made it, microseconds since the epoch.
        create_time: Of the commit that made the item.
        current_state: The state of the item's current version.
        current_sensitivity: The sensitivity of the item's current version.
        current_revision: The from_revision of the item's current version.
        content: The store's handle of the content; None without content.
        commitment: 32 bytes; empty without content.
        salt: 32 bytes; empty without content, once erased, or where not asked for.
        payload: The sealed bytes; empty without content, once erased, or where not asked for.
        source: A relation's source memory, uid; else empty.
        target: A relation's target memory, uid; else empty.
        type: A relation's type; else empty.
        weight: A relation's weight; else 0.
    """

    item: int
    kind: Kind
    id: str
    uid: str
    from_revision: int
    to_revision: int
    state: int
    sensitivity: int
    owner: str
    merged_into: str
    time: int
    create_time: int
    current_state: int
    current_sensitivity: int
    current_revision: int
    content: int | None
    commitment: bytes
    salt: bytes
    payload: bytes
    source: str = ""
    target: str = ""
    type: str = ""
    weight: float = 0.0


class CommitRow(NamedTuple):
    """A commit as stored: the header's exact bytes and their digest."""

    revision: int
    digest: bytes
    header: bytes
    time: int
    change_count: int


class ChangeRow(NamedTuple):
    """A change as stored: its exact bytes, and the version that it made."""

    sequence: int
    change: bytes
    version: Version


@dataclass(frozen=True, slots=True)
class Misfit:
    """A row that does not fit the rows around it, as only a hand in the store's files makes it.

    Attributes:
        sort: `chain`, `state`, `content` or `blob`.
        name: Whose row, relative to the cube: `commits/3`, `memories/m1`, `blobs/sha256:…`; empty for the cube.
        revision: Of the commit or version; 0 for none.
        message: What does not fit, in words, without content.
    """

    sort: str
    name: str
    revision: int
    message: str


class NewContent(NamedTuple):
    """Content to store. `vector` is float32 little-endian in the cube's model; `blobs` are digests it names."""

    commitment: bytes
    salt: bytes
    digest: bytes
    payload: bytes
    vector: bytes | None = None
    blobs: tuple[str, ...] = ()


class NewVersion(NamedTuple):
    """A change to store with the version that it makes.

    Attributes:
        change: The exact bytes of the Change.
        kind: What the item is.
        id: The last part of the item's name.
        uid: UUID text.
        item: The item's handle; None makes the item.
        content: A new content, the handle of one that the item had before, or None.
    """

    change: bytes
    kind: Kind
    id: str
    uid: str
    item: int | None
    state: int
    sensitivity: int
    owner: str
    merged_into: str = ""
    content: int | NewContent | None = None
    source: str = ""
    target: str = ""
    type: str = ""
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What a request_id is scoped to."""

    principal: str
    method: str
    resource: str
    request_id: str


class RequestRow(NamedTuple):
    """What a request_id was used for.

    Attributes:
        salt: Random bytes that the digest begins with; empty once a purge erased both.
        digest: SHA-256(salt || request bytes); empty once erased.
        result: The name of the resource that the call made or changed.
        revision: The revision of its commit; 0 when it made none.
        time: Microseconds since the epoch.
        cube: The key of the cube that it changed; 0 for none.
    """

    salt: bytes
    digest: bytes
    result: str
    revision: int
    time: int
    cube: int = 0


@dataclass(frozen=True, slots=True)
class PrincipalRow:
    """A principal; `disabled` is the time when it was disabled, 0 while it is not. Times in microseconds."""

    key: int
    id: str
    display_name: str
    created: int
    disabled: int


@dataclass(frozen=True, slots=True)
class GrantRow:
    """A grant of a role up to a sensitivity; `updated` in microseconds since the epoch."""

    key: int
    principal: str
    resource: str
    role: int
    max_sensitivity: int
    updated: int


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An audit event; `sequence` is given by the store. Time in microseconds since the epoch."""

    time: int
    principal: str
    method: str
    resource: str
    outcome: str
    detail: str = ""
    count: int = 1
    revision: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job. Times in microseconds since the epoch; `lease_until` 0 means that nobody runs it."""

    cube_id: str
    id: str
    kind: str
    state: int
    principal: str
    created: int
    updated: int
    done: int = 0
    total: int = 0
    error_reason: str = ""
    error_message: str = ""
    lease_owner: str = ""
    lease_until: int = 0


@dataclass(frozen=True, slots=True)
class PrincipalAccess:
    """Everything that decides what a principal may do.

    Attributes:
        principal: Its name.
        known: Whether it exists.
        disabled: Whether it was disabled.
        grants: resource -> (Role number, Sensitivity number).
        revoked: Whether one of the tokens that were asked about was revoked.
    """

    principal: str
    known: bool
    disabled: bool
    grants: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    revoked: bool = False


class News(NamedTuple):
    """What a record that others write to as well looks like now.

    Attributes:
        access: A number that is another one after every change to principals, tokens and grants.
        erased: A number that is another one after every erasure (`Writer.erase`).
        heads: Cube id -> revision, of the cubes that were asked for and exist.
    """

    access: int
    erased: int
    heads: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Clearance:
    """What of a cube somebody sees: a memory up to a label, a relation whose two ends are seen, the rest as a whole.

    Attributes:
        level: The Sensitivity number up to which memories are seen; 0 none.
        granted: memory id -> the level up to which it alone is seen; the higher of the two holds.
        whole: Whether sessions and the cube's settings are seen.
    """

    level: int
    granted: Mapping[str, int] = field(default_factory=dict)
    whole: bool = True
