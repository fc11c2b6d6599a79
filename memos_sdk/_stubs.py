"""The one stub layer: every RPC of MIP v1 as a row with its path, its message types and how it streams.

The transports send and receive bytes; a row says which message they are. A test compares the rows with the published
descriptor set, so an RPC that the protos gain fails until it stands here.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Generic, TypeVar

import betterproto2

from memos_sdk._gen.mip import v1 as mip

RequestT = TypeVar("RequestT", bound=betterproto2.Message)
ResponseT = TypeVar("ResponseT", bound=betterproto2.Message)


class Kind(enum.Enum):
    """Which side of an RPC streams."""

    UNARY = "unary"
    SERVER_STREAM = "server_stream"
    CLIENT_STREAM = "client_stream"


@dataclasses.dataclass(frozen=True)
class Method(Generic[RequestT, ResponseT]):
    """One RPC.

    Attributes:
        service: The service's name within `mip.v1`.
        name: The RPC's name.
        request: The request message.
        response: The response message.
        kind: Which side streams.
        replayable: False for a mutation that the server refuses to repeat even under the same request_id.
    """

    service: str
    name: str
    request: type[RequestT]
    response: type[ResponseT]
    kind: Kind = Kind.UNARY
    replayable: bool = True

    @property
    def path(self) -> str:
        """The path on the wire, such as `/mip.v1.MemoryService/AddMemories`."""
        return f"/mip.v1.{self.service}/{self.name}"

    @property
    def mutation(self) -> bool:
        """True when the request carries a request_id."""
        return "request_id" in self.request.__dataclass_fields__  # type: ignore[attr-defined] # a dataclass by generation


# AccessService
CREATE_PRINCIPAL = Method("AccessService", "CreatePrincipal", mip.CreatePrincipalRequest, mip.CreatePrincipalResponse)
LIST_PRINCIPALS = Method("AccessService", "ListPrincipals", mip.ListPrincipalsRequest, mip.ListPrincipalsResponse)
DISABLE_PRINCIPAL = Method(
    "AccessService", "DisablePrincipal", mip.DisablePrincipalRequest, mip.DisablePrincipalResponse
)
ISSUE_TOKEN = Method("AccessService", "IssueToken", mip.IssueTokenRequest, mip.IssueTokenResponse, replayable=False)
REVOKE_TOKEN = Method("AccessService", "RevokeToken", mip.RevokeTokenRequest, mip.RevokeTokenResponse)
SET_GRANT = Method("AccessService", "SetGrant", mip.SetGrantRequest, mip.SetGrantResponse)
LIST_GRANTS = Method("AccessService", "ListGrants", mip.ListGrantsRequest, mip.ListGrantsResponse)
DELETE_GRANT = Method("AccessService", "DeleteGrant", mip.DeleteGrantRequest, mip.DeleteGrantResponse)
LIST_AUDIT_EVENTS = Method("AccessService", "ListAuditEvents", mip.ListAuditEventsRequest, mip.ListAuditEventsResponse)

# BlobService
FIND_MISSING_BLOBS = Method(
    "BlobService", "FindMissingBlobs", mip.FindMissingBlobsRequest, mip.FindMissingBlobsResponse
)
WRITE_BLOB = Method("BlobService", "WriteBlob", mip.WriteBlobRequest, mip.WriteBlobResponse, Kind.CLIENT_STREAM)
READ_BLOB = Method("BlobService", "ReadBlob", mip.ReadBlobRequest, mip.ReadBlobResponse, Kind.SERVER_STREAM)
QUERY_WRITE = Method("BlobService", "QueryWrite", mip.QueryWriteRequest, mip.QueryWriteResponse)

# CubeService
CREATE_CUBE = Method("CubeService", "CreateCube", mip.CreateCubeRequest, mip.CreateCubeResponse)
GET_CUBE = Method("CubeService", "GetCube", mip.GetCubeRequest, mip.GetCubeResponse)
LIST_CUBES = Method("CubeService", "ListCubes", mip.ListCubesRequest, mip.ListCubesResponse)
UPDATE_CUBE = Method("CubeService", "UpdateCube", mip.UpdateCubeRequest, mip.UpdateCubeResponse)
DELETE_CUBE = Method("CubeService", "DeleteCube", mip.DeleteCubeRequest, mip.DeleteCubeResponse)
UNDELETE_CUBE = Method("CubeService", "UndeleteCube", mip.UndeleteCubeRequest, mip.UndeleteCubeResponse)
PURGE_CUBE = Method("CubeService", "PurgeCube", mip.PurgeCubeRequest, mip.PurgeCubeResponse)
FORK_CUBE = Method("CubeService", "ForkCube", mip.ForkCubeRequest, mip.ForkCubeResponse)
ROLLBACK_CUBE = Method("CubeService", "RollbackCube", mip.RollbackCubeRequest, mip.RollbackCubeResponse)
LIST_COMMITS = Method("CubeService", "ListCommits", mip.ListCommitsRequest, mip.ListCommitsResponse)
GET_COMMIT = Method("CubeService", "GetCommit", mip.GetCommitRequest, mip.GetCommitResponse)
LIST_COMMIT_CHANGES = Method(
    "CubeService", "ListCommitChanges", mip.ListCommitChangesRequest, mip.ListCommitChangesResponse
)
WATCH_CUBE = Method("CubeService", "WatchCube", mip.WatchCubeRequest, mip.WatchCubeResponse, Kind.SERVER_STREAM)
VERIFY_CUBE = Method("CubeService", "VerifyCube", mip.VerifyCubeRequest, mip.VerifyCubeResponse)

# GraphService
CREATE_RELATIONS = Method("GraphService", "CreateRelations", mip.CreateRelationsRequest, mip.CreateRelationsResponse)
DELETE_RELATIONS = Method("GraphService", "DeleteRelations", mip.DeleteRelationsRequest, mip.DeleteRelationsResponse)
LIST_RELATIONS = Method("GraphService", "ListRelations", mip.ListRelationsRequest, mip.ListRelationsResponse)
TRAVERSE = Method("GraphService", "Traverse", mip.TraverseRequest, mip.TraverseResponse)

# JobService
LIST_JOBS = Method("JobService", "ListJobs", mip.ListJobsRequest, mip.ListJobsResponse)
GET_JOB = Method("JobService", "GetJob", mip.GetJobRequest, mip.GetJobResponse)
WAIT_JOB = Method("JobService", "WaitJob", mip.WaitJobRequest, mip.WaitJobResponse)
CANCEL_JOB = Method("JobService", "CancelJob", mip.CancelJobRequest, mip.CancelJobResponse)

# MemoryService
BULK_ADD_MEMORIES = Method(
    "MemoryService",
    "BulkAddMemories",
    mip.BulkAddMemoriesRequest,
    mip.BulkAddMemoriesResponse,
    Kind.CLIENT_STREAM,
)
ADD_MEMORIES = Method("MemoryService", "AddMemories", mip.AddMemoriesRequest, mip.AddMemoriesResponse)
GET_MEMORY = Method("MemoryService", "GetMemory", mip.GetMemoryRequest, mip.GetMemoryResponse)
BATCH_GET_MEMORIES = Method(
    "MemoryService", "BatchGetMemories", mip.BatchGetMemoriesRequest, mip.BatchGetMemoriesResponse
)
LIST_MEMORIES = Method("MemoryService", "ListMemories", mip.ListMemoriesRequest, mip.ListMemoriesResponse)
UPDATE_MEMORY = Method("MemoryService", "UpdateMemory", mip.UpdateMemoryRequest, mip.UpdateMemoryResponse)
TRANSITION_MEMORIES = Method(
    "MemoryService", "TransitionMemories", mip.TransitionMemoriesRequest, mip.TransitionMemoriesResponse
)
MERGE_MEMORIES = Method("MemoryService", "MergeMemories", mip.MergeMemoriesRequest, mip.MergeMemoriesResponse)
DELETE_MEMORIES = Method("MemoryService", "DeleteMemories", mip.DeleteMemoriesRequest, mip.DeleteMemoriesResponse)
PURGE_MEMORIES = Method("MemoryService", "PurgeMemories", mip.PurgeMemoriesRequest, mip.PurgeMemoriesResponse)
LIST_MEMORY_REVISIONS = Method(
    "MemoryService", "ListMemoryRevisions", mip.ListMemoryRevisionsRequest, mip.ListMemoryRevisionsResponse
)
SEARCH_MEMORIES = Method("MemoryService", "SearchMemories", mip.SearchMemoriesRequest, mip.SearchMemoriesResponse)

# ServerService
GET_SERVER_STATS = Method("ServerService", "GetServerStats", mip.GetServerStatsRequest, mip.GetServerStatsResponse)
GET_CAPABILITIES = Method("ServerService", "GetCapabilities", mip.GetCapabilitiesRequest, mip.GetCapabilitiesResponse)

# SessionService
CREATE_SESSION = Method("SessionService", "CreateSession", mip.CreateSessionRequest, mip.CreateSessionResponse)
GET_SESSION = Method("SessionService", "GetSession", mip.GetSessionRequest, mip.GetSessionResponse)
LIST_SESSIONS = Method("SessionService", "ListSessions", mip.ListSessionsRequest, mip.ListSessionsResponse)
END_SESSION = Method("SessionService", "EndSession", mip.EndSessionRequest, mip.EndSessionResponse)

METHODS: dict[str, Method[Any, Any]] = {
    method.path: method for method in list(globals().values()) if isinstance(method, Method)
}
