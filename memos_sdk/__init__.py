"""The Python client of MIP, the Memory Interchange Protocol.

    from memos_sdk import Client

    with Client() as mip:
        notes = mip.cubes.create("notes")
        notes.add("Ada prefers tea to coffee.", tags=["ada"])
        for hit in notes.search("what does Ada drink?"):
            print(hit.score, hit.text)

`AsyncClient` has the same methods, to be awaited. The errors are listed in `memos_sdk.errors`.
"""

from memos_sdk._async.client import AsyncClient
from memos_sdk._async.cube import AsyncCube
from memos_sdk._core.discovery import TLS
from memos_sdk._core.heads import Head, HeadStore
from memos_sdk._core.retry import RetryPolicy
from memos_sdk._gen.mip.v1 import (
    AuditEvent,
    BlobRef,
    ChangeKind,
    Direction,
    Grant,
    Job,
    JobState,
    MemoryState,
    Principal,
    Provenance,
    ProvenanceKind,
    Relation,
    Role,
    SearchMode,
    Sensitivity,
    Vector,
)
from memos_sdk._sync.client import Client
from memos_sdk._sync.cube import Cube
from memos_sdk._version import __version__
from memos_sdk.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    ConnectError,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    HeadMismatch,
    Internal,
    InvalidArgument,
    MipError,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
    UsageError,
)
from memos_sdk.models import (
    AddSummary,
    Capabilities,
    Change,
    Commit,
    CubeInfo,
    Hit,
    Memory,
    Mutation,
    Rollback,
    SealedMemory,
    SearchResult,
    Session,
    Token,
    Traversal,
    Verification,
    WatchEvent,
)

__all__ = [
    "TLS",
    "Aborted",
    "AddSummary",
    "AlreadyExists",
    "AsyncClient",
    "AsyncCube",
    "AuditEvent",
    "BlobRef",
    "Cancelled",
    "Capabilities",
    "Change",
    "ChangeKind",
    "Client",
    "Commit",
    "ConnectError",
    "Cube",
    "CubeInfo",
    "DataLoss",
    "DeadlineExceeded",
    "Direction",
    "FailedPrecondition",
    "FieldViolation",
    "Grant",
    "Head",
    "HeadMismatch",
    "HeadStore",
    "Hit",
    "Internal",
    "InvalidArgument",
    "Job",
    "JobState",
    "Memory",
    "MemoryState",
    "MipError",
    "Mutation",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Principal",
    "Provenance",
    "ProvenanceKind",
    "Relation",
    "ResourceExhausted",
    "RetryPolicy",
    "Role",
    "Rollback",
    "SealedMemory",
    "SearchMode",
    "SearchResult",
    "Sensitivity",
    "Session",
    "Token",
    "Traversal",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "UsageError",
    "Vector",
    "Verification",
    "WatchEvent",
    "__version__",
]
