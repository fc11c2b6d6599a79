"""The Python client of MIP, the Memory Interchange Protocol.

    from memos_sdk import Client

    with Client() as mip:
        notes = mip.cubes.create("notes")
        notes.add("Ada prefers tea to coffee.", tags=["ada"])
        for hit in notes.search("what does Ada drink?"):
            print(hit.score, hit.text)

`AsyncClient` has the same methods, to be awaited. The errors are listed in `memos_sdk.errors`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        Extension,
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
        BlobStat,
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
    "BlobStat",
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
    "Extension",
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

# Where a name lives. It is imported when it is first asked for: the generated messages and enums alone take longer than
# all the rest, and many programs need none of them.
_HOMES = {
    "memos_sdk._version": "__version__",
    "memos_sdk._async.client": "AsyncClient",
    "memos_sdk._async.cube": "AsyncCube",
    "memos_sdk._core.discovery": "TLS",
    "memos_sdk._core.heads": "Head HeadStore",
    "memos_sdk._core.retry": "RetryPolicy",
    "memos_sdk._gen.mip.v1": (
        "AuditEvent BlobRef ChangeKind Direction Extension Grant Job JobState MemoryState Principal Provenance "
        "ProvenanceKind Relation Role SearchMode Sensitivity Vector"
    ),
    "memos_sdk._sync.client": "Client",
    "memos_sdk._sync.cube": "Cube",
    "memos_sdk.errors": (
        "Aborted AlreadyExists Cancelled ConnectError DataLoss DeadlineExceeded FailedPrecondition "
        "FieldViolation HeadMismatch Internal InvalidArgument MipError NotFound OutOfRange PermissionDenied "
        "ResourceExhausted Unauthenticated Unavailable Unimplemented Unknown UsageError"
    ),
    "memos_sdk.models": (
        "AddSummary BlobStat Capabilities Change Commit CubeInfo Hit Memory Mutation Rollback SealedMemory "
        "SearchResult Session Token Traversal Verification WatchEvent"
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Imports a name that is asked for the first time."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns the names that are exported."""
    return sorted({*globals(), *__all__})
