"""The one stub layer: every RPC of MIP v1 as a row with its path, its message types and how it streams.

The transports send and receive bytes; a row says which message they are. A test compares the rows with the published
descriptor set, so an RPC that the protos gain fails until it stands here.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

from google.protobuf.message import Message

from memos_sdk._core.convert import VALUE_ERRORS, unfit
from memos_sdk._gen import wire

FieldsT = ParamSpec("FieldsT")
RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


class Kind(enum.Enum):
    """Which side of an RPC streams."""

    UNARY = "unary"
    SERVER_STREAM = "server_stream"
    CLIENT_STREAM = "client_stream"


@dataclasses.dataclass(frozen=True)
class Method(Generic[FieldsT, RequestT, ResponseT]):
    """One RPC. Called with the fields of a request, it makes that request.

    Attributes:
        service: The service's name within `mip.v1`.
        name: The RPC's name.
        request: The wire's request message.
        response: The wire's response message.
        kind: Which side streams.
        replayable: False for a mutation that the server refuses to repeat even under the same request_id.
    """

    service: str
    name: str
    request: Callable[FieldsT, RequestT]
    response: type[ResponseT]
    kind: Kind = Kind.UNARY
    replayable: bool = True

    def __call__(self, *args: FieldsT.args, **fields: FieldsT.kwargs) -> RequestT:
        """Returns a request.

        Raises:
            UsageError: A field cannot hold what it is given.
        """
        try:
            return self.request(*args, **fields)
        except VALUE_ERRORS as error:
            raise unfit(self.name, error) from error

    @property
    def path(self) -> str:
        """The path on the wire, such as `/mip.v1.MemoryService/AddMemories`."""
        return f"/mip.v1.{self.service}/{self.name}"

    @property
    def mutation(self) -> bool:
        """True when the request carries a request_id."""
        return "request_id" in cast(type[Message], self.request).DESCRIPTOR.fields_by_name


# AccessService
CREATE_PRINCIPAL = Method("AccessService", "CreatePrincipal", wire.CreatePrincipalRequest, wire.CreatePrincipalResponse)
LIST_PRINCIPALS = Method("AccessService", "ListPrincipals", wire.ListPrincipalsRequest, wire.ListPrincipalsResponse)
DISABLE_PRINCIPAL = Method(
    "AccessService", "DisablePrincipal", wire.DisablePrincipalRequest, wire.DisablePrincipalResponse
)
ISSUE_TOKEN = Method("AccessService", "IssueToken", wire.IssueTokenRequest, wire.IssueTokenResponse, replayable=False)
REVOKE_TOKEN = Method("AccessService", "RevokeToken", wire.RevokeTokenRequest, wire.RevokeTokenResponse)
SET_GRANT = Method("AccessService", "SetGrant", wire.SetGrantRequest, wire.SetGrantResponse)
LIST_GRANTS = Method("AccessService", "ListGrants", wire.ListGrantsRequest, wire.ListGrantsResponse)
DELETE_GRANT = Method("AccessService", "DeleteGrant", wire.DeleteGrantRequest, wire.DeleteGrantResponse)
LIST_AUDIT_EVENTS = Method(
    "AccessService", "ListAuditEvents", wire.ListAuditEventsRequest, wire.ListAuditEventsResponse
)

# BlobService
FIND_MISSING_BLOBS = Method(
    "BlobService", "FindMissingBlobs", wire.FindMissingBlobsRequest, wire.FindMissingBlobsResponse
)
WRITE_BLOB = Method("BlobService", "WriteBlob", wire.WriteBlobRequest, wire.WriteBlobResponse, Kind.CLIENT_STREAM)
READ_BLOB = Method("BlobService", "ReadBlob", wire.ReadBlobRequest, wire.ReadBlobResponse, Kind.SERVER_STREAM)
QUERY_WRITE = Method("BlobService", "QueryWrite", wire.QueryWriteRequest, wire.QueryWriteResponse)

# CubeService
CREATE_CUBE = Method("CubeService", "CreateCube", wire.CreateCubeRequest, wire.CreateCubeResponse)
GET_CUBE = Method("CubeService", "GetCube", wire.GetCubeRequest, wire.GetCubeResponse)
LIST_CUBES = Method("CubeService", "ListCubes", wire.ListCubesRequest, wire.ListCubesResponse)
UPDATE_CUBE = Method("CubeService", "UpdateCube", wire.UpdateCubeRequest, wire.UpdateCubeResponse)
DELETE_CUBE = Method("CubeService", "DeleteCube", wire.DeleteCubeRequest, wire.DeleteCubeResponse)
UNDELETE_CUBE = Method("CubeService", "UndeleteCube", wire.UndeleteCubeRequest, wire.UndeleteCubeResponse)
PURGE_CUBE = Method("CubeService", "PurgeCube", wire.PurgeCubeRequest, wire.PurgeCubeResponse)
FORK_CUBE = Method("CubeService", "ForkCube", wire.ForkCubeRequest, wire.ForkCubeResponse)
ROLLBACK_CUBE = Method("CubeService", "RollbackCube", wire.RollbackCubeRequest, wire.RollbackCubeResponse)
LIST_COMMITS = Method("CubeService", "ListCommits", wire.ListCommitsRequest, wire.ListCommitsResponse)
GET_COMMIT = Method("CubeService", "GetCommit", wire.GetCommitRequest, wire.GetCommitResponse)
LIST_COMMIT_CHANGES = Method(
    "CubeService", "ListCommitChanges", wire.ListCommitChangesRequest, wire.ListCommitChangesResponse
)
WATCH_CUBE = Method("CubeService", "WatchCube", wire.WatchCubeRequest, wire.WatchCubeResponse, Kind.SERVER_STREAM)
VERIFY_CUBE = Method("CubeService", "VerifyCube", wire.VerifyCubeRequest, wire.VerifyCubeResponse)

# GraphService
CREATE_RELATIONS = Method("GraphService", "CreateRelations", wire.CreateRelationsRequest, wire.CreateRelationsResponse)
DELETE_RELATIONS = Method("GraphService", "DeleteRelations", wire.DeleteRelationsRequest, wire.DeleteRelationsResponse)
LIST_RELATIONS = Method("GraphService", "ListRelations", wire.ListRelationsRequest, wire.ListRelationsResponse)
TRAVERSE = Method("GraphService", "Traverse", wire.TraverseRequest, wire.TraverseResponse)

# JobService
LIST_JOBS = Method("JobService", "ListJobs", wire.ListJobsRequest, wire.ListJobsResponse)
GET_JOB = Method("JobService", "GetJob", wire.GetJobRequest, wire.GetJobResponse)
WAIT_JOB = Method("JobService", "WaitJob", wire.WaitJobRequest, wire.WaitJobResponse)
CANCEL_JOB = Method("JobService", "CancelJob", wire.CancelJobRequest, wire.CancelJobResponse)

# MemoryService
BULK_ADD_MEMORIES = Method(
    "MemoryService",
    "BulkAddMemories",
    wire.BulkAddMemoriesRequest,
    wire.BulkAddMemoriesResponse,
    Kind.CLIENT_STREAM,
)
ADD_MEMORIES = Method("MemoryService", "AddMemories", wire.AddMemoriesRequest, wire.AddMemoriesResponse)
GET_MEMORY = Method("MemoryService", "GetMemory", wire.GetMemoryRequest, wire.GetMemoryResponse)
BATCH_GET_MEMORIES = Method(
    "MemoryService", "BatchGetMemories", wire.BatchGetMemoriesRequest, wire.BatchGetMemoriesResponse
)
LIST_MEMORIES = Method("MemoryService", "ListMemories", wire.ListMemoriesRequest, wire.ListMemoriesResponse)
UPDATE_MEMORY = Method("MemoryService", "UpdateMemory", wire.UpdateMemoryRequest, wire.UpdateMemoryResponse)
TRANSITION_MEMORIES = Method(
    "MemoryService", "TransitionMemories", wire.TransitionMemoriesRequest, wire.TransitionMemoriesResponse
)
MERGE_MEMORIES = Method("MemoryService", "MergeMemories", wire.MergeMemoriesRequest, wire.MergeMemoriesResponse)
DELETE_MEMORIES = Method("MemoryService", "DeleteMemories", wire.DeleteMemoriesRequest, wire.DeleteMemoriesResponse)
PURGE_MEMORIES = Method("MemoryService", "PurgeMemories", wire.PurgeMemoriesRequest, wire.PurgeMemoriesResponse)
LIST_MEMORY_REVISIONS = Method(
    "MemoryService", "ListMemoryRevisions", wire.ListMemoryRevisionsRequest, wire.ListMemoryRevisionsResponse
)
SEARCH_MEMORIES = Method("MemoryService", "SearchMemories", wire.SearchMemoriesRequest, wire.SearchMemoriesResponse)

# ServerService
GET_SERVER_STATS = Method("ServerService", "GetServerStats", wire.GetServerStatsRequest, wire.GetServerStatsResponse)
GET_CAPABILITIES = Method("ServerService", "GetCapabilities", wire.GetCapabilitiesRequest, wire.GetCapabilitiesResponse)

# SessionService
CREATE_SESSION = Method("SessionService", "CreateSession", wire.CreateSessionRequest, wire.CreateSessionResponse)
GET_SESSION = Method("SessionService", "GetSession", wire.GetSessionRequest, wire.GetSessionResponse)
LIST_SESSIONS = Method("SessionService", "ListSessions", wire.ListSessionsRequest, wire.ListSessionsResponse)
END_SESSION = Method("SessionService", "EndSession", wire.EndSessionRequest, wire.EndSessionResponse)

METHODS: dict[str, Method[..., Any, Any]] = {
    method.path: method for method in list(globals().values()) if isinstance(method, Method)
}
