"""What every use case works with: the parts of a running server, and the call that it answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from memos_server import names
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_DELETED, MEMORY_STATE_PURGED
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, PrincipalAccess, Reader, RecordStore
from memos_server.mem_os.access import CubeView, denied, view_of
from memos_server.mem_os.watching import AccessChanges, Heads
from memos_server.telemetry.calls import CallCounts, step

if TYPE_CHECKING:
    from memos_server.blob_stores.base import BlobStore
    from memos_server.configs.settings import Settings
    from memos_server.mem_os.embedding import Embeddings
    from memos_server.mem_os.indexing import IndexKeeper
    from memos_server.mem_os.paging import TokenCodec
    from memos_server.mem_os.principals import TokenIssuer
    from memos_server.mem_os.staging import Staging
    from memos_server.mem_os.vitals import Vitals
    from memos_server.mem_scheduler.jobs import JobRunner
    from memos_server.memories.registry import MemoryTypes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes:
        method: The full method, such as `/mip.v1.MemoryService/AddMemories`.
        access: Who calls, with all grants.
        credentials: The ids of the token and the certificate that authenticated the call.
        expiry: When the first of them ends, seconds since the epoch.
    """

    method: str
    access: PrincipalAccess
    credentials: tuple[str, ...] = ()
    expiry: float = math.inf

    @property
    def principal(self) -> str:
        """The caller's name."""
        return self.access.principal

    def view(self, cube_id: str, *, whole: bool = False) -> CubeView:
        """Returns what the caller sees of a cube.

        Args:
            cube_id: The cube.
            whole: True when the call concerns the cube as a whole, so that grants on single memories do not suffice.

        Raises:
            MipError: PERMISSION_DENIED.
        """
        view = view_of(self.access, cube_id)
        if whole and not view.rank:
            raise denied(names.cube_name(cube_id))
        return view

    async def with_grants_of_now(self, txn: Reader) -> Call:
        """Returns the call with the caller's grants as the record holds them: a call that makes a cube brings one."""
        return replace(self, access=await txn.access(self.principal))


@dataclass(slots=True)
class Mos:
    """The parts of a running server."""

    settings: Settings
    store: RecordStore
    blobs: BlobStore
    keeper: IndexKeeper
    embeddings: Embeddings
    types: MemoryTypes
    jobs: JobRunner
    pages: TokenCodec
    issuer: TokenIssuer
    audience: str
    staging: Staging
    vitals: Vitals
    services: Sequence[str] = ()
    levels: Sequence[str] = ()
    cpu: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="cpu"))
    heads: Heads = field(default_factory=Heads)
    access: AccessChanges = field(default_factory=AccessChanges)
    calls: CallCounts = field(default_factory=CallCounts)
    going: bool = False
    """Whether the server was told to end: it says NOT_SERVING and still answers."""
    draining: bool = False
    """Whether it takes no more calls and ends its streams."""
    # A lock lives as long as somebody holds it or waits for it.
    _blob_locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    @property
    def shared(self) -> bool:
        """Whether other servers write to the record too."""
        return self.store.access_generation is None

    async def read(
        self, work: Callable[[Reader], Awaitable[T]], *, brief: bool = False, again: Sequence[CubeRow] = ()
    ) -> T:
        """Runs work on a snapshot of the record; `brief` work looks up a few rows by their keys, and cubes that are
        read `again` may be shown as they were."""
        with step("record.read"):
            return await self.store.read(work, brief=brief, again=again)

    def blob_lock(self, cube_uid: str) -> asyncio.Lock:
        """Returns the lock under which a cube's blobs appear and vanish, in the store and in the record alike."""
        return self._blob_locks.setdefault(cube_uid, asyncio.Lock())

    def access_changed(self) -> None:
        """Makes open streams check again whether they may go on."""
        self.access.changed()


async def existing_cube(txn: Reader, cube_id: str, *, deleted: bool = False) -> CubeRow:
    """Returns a cube.

    Args:
        txn: The transaction.
        cube_id: The cube.
        deleted: True returns deleted and purged cubes too.

    Raises:
        MipError: CUBE_NOT_FOUND, CUBE_DELETED or CUBE_PURGED.
    """
    cube = await txn.cube(cube_id)
    if cube is None:
        raise MipError("CUBE_NOT_FOUND", f"{names.cube_name(cube_id)} does not exist")
    return cube if deleted else in_use(cube)


def in_use(cube: CubeRow) -> CubeRow:
    """Returns the cube when it is neither deleted nor purged."""
    if cube.settings.state == MEMORY_STATE_DELETED:
        raise MipError("CUBE_DELETED", f"{names.cube_name(cube.id)} is deleted")
    if cube.settings.state == MEMORY_STATE_PURGED:
        raise MipError("CUBE_PURGED", f"{names.cube_name(cube.id)} is purged")
    return cube


def at_revision(cube: CubeRow, revision: int, field_name: str = "as_of_revision") -> int | None:
    """Returns the revision to read at: None for 0, the present.

    Raises:
        MipError: REVISION_NOT_FOUND when the cube never had it.
    """
    if revision > cube.revision:
        raise MipError(
            "REVISION_NOT_FOUND",
            f"{field_name} {revision} is above the current revision {cube.revision} of {names.cube_name(cube.id)}",
            metadata={"current_revision": str(cube.revision)},
        )
    return revision or None
