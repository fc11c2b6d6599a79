"""The port of record stores (`memos.graph_dbs`): what is written and read, in the record's own terms.

A unit of work is an `async` function over a `Reader` or a `Writer`. An embedded store runs it to its end in a thread of
its own (its methods never suspend), a remote one awaits it; the use cases are the same for both. Work given to `write`
may run again after a conflict, so it has no effect outside its transaction.

Every versioned thing of a cube (its settings, a memory, a relation, a session) is an *item* with *versions*; a version
is valid in `[from_revision, to_revision)` and carries the exact bytes of the change that made it. State at a revision,
history, rollback, audit and Watch are readings of these.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol, TypeVar

OPEN = 2**62
"""The `to_revision` of a version that is current."""

T = TypeVar("T")


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
    """Everything that decides what a principal may do."""

    principal: str
    known: bool
    disabled: bool
    grants: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """resource -> (Role number, Sensitivity number)"""


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


class Reader(Protocol):
    """Reads of one consistent snapshot. `revision` None means the present."""

    async def cube(self, cube_id: str) -> CubeRow | None:
        """Returns a cube in any state."""

    async def cubes(self, after: int, limit: int) -> Sequence[CubeRow]:
        """Returns cubes with a key above `after`, in order of creation."""

    async def commits(self, cube: int, low: int, high: int, limit: int, *, newest_first: bool) -> Sequence[CommitRow]:
        """Returns commits with low <= revision <= high."""

    async def commit_at(self, cube: int, time: int) -> int:
        """Returns the revision of the newest commit not after a time; 0 when there is none."""

    async def changes(
        self, cube: int, revision: int, after: int, limit: int, *, with_content: bool = False
    ) -> Sequence[ChangeRow]:
        """Returns the changes of a commit whose sequence (from 0) is above `after`, in order."""

    async def count_changes(self, cube: int, revision: int, clearance: Clearance) -> int:
        """Returns how many changes of a commit are seen: of memories by the stricter of the label then and now, of
        relations by both ends' labels now. A commit may hold a million: it is counted without being handed over."""

    async def versions(
        self, cube: int, kind: Kind, ids: Iterable[str], revision: int | None = None
    ) -> Mapping[str, Version]:
        """Returns id -> version with content, for the items that exist at the revision."""

    async def versions_by_uid(
        self, cube: int, uids: Iterable[str], revision: int | None = None, *, with_content: bool = True
    ) -> Mapping[str, Version]:
        """Returns uid -> version, its salt and payload where asked for, for the items that exist at the revision."""

    async def list_versions(
        self,
        cube: int,
        kind: Kind,
        after: int,
        limit: int,
        revision: int | None = None,
        *,
        with_content: bool = True,
        clearance: Clearance | None = None,
    ) -> Sequence[Version]:
        """Returns the versions of items whose handle is above `after`, in order of creation, in any state.

        Args:
            cube: The cube's key.
            kind: What is listed.
            after: The handle of the last item of the page before.
            limit: The most versions.
            revision: When.
            with_content: Whether payload and salt are read.
            clearance: Leaves out the memories that are not seen, as if there were none; None leaves out nothing.
        """

    async def history(self, cube: int, kind: Kind, id_: str, before: int, limit: int) -> Sequence[Version]:
        """Returns an item's versions with from_revision < before, newest first, with content."""

    async def relations(
        self,
        cube: int,
        uids: Sequence[str],
        *,
        outgoing: bool,
        incoming: bool,
        revision: int | None = None,
        types: Iterable[str] = (),
        after: int = 0,
        limit: int | None = None,
    ) -> Sequence[Version]:
        """Returns the ACTIVE relations that leave or enter memories, in order of creation.

        Args:
            cube: The cube.
            uids: The memories.
            outgoing: Whether those that leave a memory count.
            incoming: Whether those that enter one do.
            revision: The revision; None means the present.
            types: The types that count; none means all.
            after: The handle of the last one that was seen; with it, `uids` names one memory.
            limit: The most to return: of one memory the first ones, of several any. A memory may have millions.
        """

    async def changed_items(self, cube: int, after_revision: int) -> Sequence[tuple[Version, Version | None]]:
        """Returns, for each item that changed after a revision, its current version and the one at the revision."""

    async def vectors(self, contents: Iterable[int]) -> Mapping[int, bytes]:
        """Returns content handle -> float32 little-endian bytes, for the contents that have one."""

    async def names(self, cube: int, uids: Iterable[str]) -> Mapping[str, str]:
        """Returns uid -> name relative to the cube."""

    async def request(self, key: RequestKey) -> RequestRow | None:
        """Returns what a request_id was used for."""

    async def access(self, principal: str) -> PrincipalAccess:
        """Returns what decides a principal's rights."""

    async def token_revoked(self, token_id: str) -> int:
        """Returns when a token was revoked, microseconds since the epoch; 0 when it was not."""

    async def principals(self, after: int, limit: int) -> Sequence[PrincipalRow]:
        """Returns principals with a key above `after`, in order of creation."""

    async def principal(self, principal_id: str) -> PrincipalRow | None:
        """Returns a principal."""

    async def grants_on(self, resource: str, after: int, limit: int) -> Sequence[GrantRow]:
        """Returns the grants on a resource and on what lies below it, keys above `after`, in order of creation."""

    async def grant(self, principal: str, resource: str) -> GrantRow | None:
        """Returns a grant."""

    async def audit_events(self, resource: str, before: int, limit: int) -> Sequence[AuditRow]:
        """Returns events with a sequence below `before`, newest first; of a resource and below it, or all for ``."""

    async def job(self, cube_id: str, job_id: str) -> JobRow | None:
        """Returns a job."""

    async def jobs(self, cube_id: str, before: str, limit: int) -> Sequence[JobRow]:
        """Returns the jobs of a cube with an id below `before` (empty: all), newest first."""

    async def unfinished_jobs(self, now: int, limit: int) -> Sequence[JobRow]:
        """Returns jobs that are pending, or running without a valid lease, oldest first."""

    async def blobs(self, cube: int, digests: Iterable[str]) -> Mapping[str, int]:
        """Returns digest -> size of the blobs that a cube holds."""

    async def blobs_proven(self, cube: int, digests: Iterable[str], principal: str) -> Set[str]:
        """Returns those blobs whose bytes a principal has uploaded to the cube."""

    async def doomed_blobs(self, cube: int) -> Sequence[str]:
        """Returns the digests of a cube's doomed blobs."""

    async def blob_users(self, cube: int, digest: str) -> Sequence[Version]:
        """Returns the versions of a cube, past ones too, whose content names a blob, without content."""

    async def cube_blobs(self, cube: int, after: str, limit: int) -> Sequence[tuple[str, int]]:
        """Returns (digest, size) of a cube's blobs with a digest above `after`, in order."""

    async def content_blobs(self, contents: Iterable[int]) -> Mapping[int, Set[str]]:
        """Returns content handle -> digests of the blobs that the content names, for the contents that name any."""

    async def misfits(self, cube: int, limit: int) -> Sequence[Misfit]:
        """Returns rows of a cube that its readers cannot take or would not find, or find where they do not belong, at
        most `limit`: values of another type, versions of an item that overlap, contents of another item, blobs that are
        named and not held. A cube that nothing but this port has written has none."""

    async def forks_of(self, cube_uid: str) -> Sequence[str]:
        """Returns the names of the cubes whose first commit took in a head of this cube's log."""


class Writer(Reader, Protocol):
    """A transaction: all of it becomes durable, or none."""

    async def lock_cube(self, cube_id: str) -> CubeRow | None:
        """Takes the cube's lock until the transaction ends, then returns the cube as it is now."""

    async def insert_cube(self, cube_id: str, uid: str, owner: str) -> int:
        """Makes a cube without commits and returns its key; the first `append` must make its settings item.

        Raises:
            KeyError: The id is or was in use.
        """

    async def append(self, cube: int, commit: CommitRow, versions: Sequence[NewVersion]) -> None:
        """Appends a commit: stores changes and contents, ends the versions that they replace, moves the head.

        Raises:
            KeyError: The id of a new item is or was in use; the argument is its name relative to the cube.
        """

    async def erase(self, cube: int, items: Sequence[int]) -> None:
        """Erases salts, digests, payloads and vectors of all versions of items, and the digests of the requests that
        wrote them; their commitments stay. Blobs that no content of the cube names any more become doomed: absent for
        readers, until their bytes are gone and `delete_blob` forgets them."""

    async def put_request(self, key: RequestKey, row: RequestRow) -> None:
        """Records what a request_id was used for."""

    async def forget_requests(self, before: int) -> int:
        """Drops request ids older than a time; returns how many."""

    async def put_principal(self, principal_id: str, display_name: str, now: int) -> None:
        """Makes a principal.

        Raises:
            KeyError: The id is in use.
        """

    async def disable_principal(self, principal_id: str, now: int) -> None:
        """Disables a principal; once disabled, it keeps its first time."""

    async def revoke_token(self, token_id: str, now: int) -> int:
        """Revokes a token and returns when it was revoked first."""

    async def put_grant(self, principal: str, resource: str, role: int, max_sensitivity: int, now: int) -> None:
        """Sets a grant."""

    async def delete_grant(self, principal: str, resource: str) -> bool:
        """Deletes a grant; False when there was none."""

    async def put_audit(self, event: AuditRow) -> None:
        """Appends an audit event."""

    async def put_job(self, job: JobRow) -> None:
        """Stores a job, new or changed."""

    async def put_blob(self, cube: int, digest: str, size: int, now: int) -> None:
        """Records that a cube holds a blob."""

    async def put_blob_proof(self, cube: int, digest: str, principal: str) -> None:
        """Records that a principal has uploaded the bytes of a blob."""

    async def doom_blob(self, cube: int, digest: str) -> None:
        """Makes a blob absent for readers, until `delete_blob` forgets it."""

    async def delete_blob(self, cube: int, digest: str) -> None:
        """Forgets a doomed blob; one that is not doomed stays."""


class RecordStore(Protocol):
    """A record store."""

    name: str

    @property
    def access_generation(self) -> int | None:
        """A number that changes with every change to principals, tokens and grants, when this process makes all of
        them; None when others may, and nothing may be remembered between calls."""

    async def open(self) -> None:
        """Opens the store and brings its schema up to date.

        Raises:
            MipError: DATA_CORRUPT when it is damaged; the message says what and what to do.
        """

    async def close(self) -> None:
        """Finishes running work and closes."""

    async def read(self, work: Callable[[Reader], Awaitable[T]], *, brief: bool = False) -> T:
        """Runs work on one consistent snapshot that holds every write acknowledged before.

        Args:
            work: What to read.
            brief: True promises that the work looks up a few rows by their keys, well below a millisecond. An embedded
                store then runs it at once, where handing it to a thread would take longer than the work.
        """

    async def write(self, work: Callable[[Writer], Awaitable[T]]) -> T:
        """Runs work in a transaction and returns its result once it is durable. An exception of the work undoes it."""

    @property
    def waiting_writes(self) -> int:
        """The number of writes that wait for others to end; 0 where the store does not queue them."""

    async def probe(self) -> None:
        """Tries whether the store can be read and written, in a moment and beside what it is busy with.

        Raises:
            MipError: BACKEND_UNAVAILABLE, STORAGE_FULL or DATA_CORRUPT; the message says what is wrong, without
                content, and what to do.
        """

    async def compact(self) -> bool:
        """Makes erased bytes leave the files (write-ahead log included). False: readers stood in the way, try again."""

    async def check(self) -> Sequence[str]:
        """Checks the store's own structures; returns what is damaged, in words."""
