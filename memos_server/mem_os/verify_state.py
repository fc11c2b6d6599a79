"""What a verification has seen and found so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from memos_server import names
from memos_server._pb.mip.v1.commit_pb2 import CommitHeader
from memos_server._pb.mip.v1.cube_service_pb2 import Finding, VerifyCubeResponse
from memos_server.graph_dbs.base import CubeRow
from memos_server.mem_os.access import CubeView
from memos_server.memories.registry import MemoryTypes
from memos_server.vec_dbs.base import IndexEntry

_NAMED = 1000


@dataclass(slots=True)
class ReplayedItem:
    """What the changes so far say of an item."""

    uid: str
    state: int
    commitment: bytes
    sensitivity: int
    owner: str
    merged_into: str
    revision: int
    weight: float
    created: int


@dataclass(slots=True)
class Replay:
    """The state of a verification. All changes are checked; those that the caller sees are counted.

    Attributes:
        view: What the caller sees.
        types: The memory types, which say what blobs a content names.
        response: The verdict so far.
        items: relative name -> what the changes so far say of it.
        first: The first commit's header; None before it was read.
        owner: The owner that the cube was made with.
        blobs: digest -> (relative name of a memory that names it, revision, size), of contents that are still there.
        indexed: The revision that the index had reached when it was asked.
        entries: (uid, from_revision) -> what the index holds and the replay has not come to yet.
    """

    view: CubeView
    types: MemoryTypes
    response: VerifyCubeResponse = field(default_factory=VerifyCubeResponse)
    items: dict[str, ReplayedItem] = field(default_factory=dict)
    first: CommitHeader | None = None
    owner: str = ""
    blobs: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    indexed: int = 0
    entries: dict[tuple[str, int], IndexEntry] = field(default_factory=dict)

    def found(self, kind: str, resource: str, revision: int, message: str) -> None:
        """Notes a finding."""
        if len(self.response.findings) < _NAMED:
            self.response.findings.append(Finding(kind=kind, resource=resource, revision=revision, message=message))


def resource_of(cube: CubeRow, relative: str) -> str:
    """Returns a full name, also of one that is no name: what is being verified may have been tampered with."""
    return f"{names.cube_name(cube.id)}/{relative}".rstrip("/")
