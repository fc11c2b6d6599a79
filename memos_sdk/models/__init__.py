"""What the clients return: thin, read-only views of the protocol's messages; `.message` is the message itself."""

from memos_sdk.models.cube import CubeInfo, Session
from memos_sdk.models.done import AddSummary, BlobStat, Mutation, Rollback
from memos_sdk.models.found import Hit, SearchResult, Traversal
from memos_sdk.models.log import Change, Commit, Verification, WatchEvent
from memos_sdk.models.memory import Memory, SealedMemory
from memos_sdk.models.server import Capabilities, Token
from memos_sdk.models.view import View

__all__ = [
    "AddSummary",
    "BlobStat",
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
    "View",
    "WatchEvent",
]
