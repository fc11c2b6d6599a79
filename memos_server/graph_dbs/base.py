"""The port of record stores (`memos.graph_dbs`): how the rows of `rows.py` are read and written.

A unit of work is an `async` function over a `Reader` or a `Writer`. An embedded store runs it to its end in a thread of
its own (its methods never suspend), a remote one awaits it; the use cases are the same for both. Work given to `write`
may run again after a conflict, so it has no effect outside its transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Set
from typing import Protocol, TypeVar

from memos_server.graph_dbs.rows import (
    OPEN,
    AuditRow,
    ChangeRow,
    Clearance,
    CommitRow,
    CubeRow,
    GrantRow,
    JobRow,
    Kind,
    Misfit,
    NewContent,
    News,
    NewVersion,
    PrincipalAccess,
    PrincipalRow,
    RequestKey,
    RequestRow,
    Version,
    relative_name,
)

__all__ = [
    "OPEN",
    "AuditRow",
    "ChangeRow",
    "Clearance",
    "CommitRow",
    "CubeRow",
    "GrantRow",
    "JobRow",
    "Kind",
    "Misfit",
    "NewContent",
    "NewVersion",
    "News",
    "PrincipalAccess",
    "PrincipalRow",
    "Reader",
    "RecordStore",
    "RequestKey",
    "RequestRow",
    "Version",
    "Writer",
    "relative_name",
]

T = TypeVar("T")


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

    async def access(self, principal: str, credentials: Sequence[str] = ()) -> PrincipalAccess:
        """Returns what decides a principal's rights, and whether a token or certificate of these ids was revoked."""

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

    async def put_blob(self, cube: int, digest: str, size: int, now: int) -> bool:
        """Records that a cube holds a blob, doomed or not before; False while its bytes are being erased, which changes
        nothing."""

    async def put_blob_proof(self, cube: int, digest: str, principal: str) -> None:
        """Records that a principal has uploaded the bytes of a blob."""

    async def doom_blob(self, cube: int, digest: str) -> None:
        """Makes a blob absent for readers, until `delete_blob` forgets it."""

    async def begin_erasing_blob(self, cube: int, digest: str) -> bool:
        """Keeps a doomed blob from being put again until `delete_blob`; False when it is not doomed (any more)."""

    async def delete_blob(self, cube: int, digest: str) -> None:
        """Forgets a doomed blob, whose bytes are erased; one that is not doomed stays."""


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

    async def news(self, cubes: Collection[str]) -> News:
        """Returns what others may have changed, for who waits for it: asked several times a second, in one round trip.

        Args:
            cubes: The ids of the cubes that somebody watches.
        """

    async def read(
        self, work: Callable[[Reader], Awaitable[T]], *, brief: bool = False, again: Sequence[CubeRow] = ()
    ) -> T:
        """Runs work on one consistent snapshot that holds every write acknowledged before.

        Args:
            work: What to read.
            brief: True promises that the work looks up a few rows by their keys, well below a millisecond. An embedded
                store then runs it at once, where handing it to a thread would take longer than the work.
            again: Cubes as an earlier unit of work has returned them. A store over a network may show these as they
                were then instead of asking for them once more, and may run the work twice.
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
