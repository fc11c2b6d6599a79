import datetime

from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from memos_sdk._gen.wire import commit_pb2 as _commit_pb2
from memos_sdk._gen.wire import common_pb2 as _common_pb2
from memos_sdk._gen.wire import memory_pb2 as _memory_pb2
from memos_sdk._gen.wire import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_MODE_UNSPECIFIED: _ClassVar[SearchMode]
    SEARCH_MODE_HYBRID: _ClassVar[SearchMode]
    SEARCH_MODE_VECTOR: _ClassVar[SearchMode]
    SEARCH_MODE_LEXICAL: _ClassVar[SearchMode]
    SEARCH_MODE_GRAPH: _ClassVar[SearchMode]
SEARCH_MODE_UNSPECIFIED: SearchMode
SEARCH_MODE_HYBRID: SearchMode
SEARCH_MODE_VECTOR: SearchMode
SEARCH_MODE_LEXICAL: SearchMode
SEARCH_MODE_GRAPH: SearchMode

class AddMemoriesRequest(_message.Message):
    __slots__ = ("parent", "memories", "request_id", "cause", "expected_revision")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    parent: str
    memories: _containers.RepeatedCompositeFieldContainer[_memory_pb2.Memory]
    request_id: str
    cause: str
    expected_revision: int
    def __init__(self, parent: _Optional[str] = ..., memories: _Optional[_Iterable[_Union[_memory_pb2.Memory, _Mapping]]] = ..., request_id: _Optional[str] = ..., cause: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class AddMemoriesResponse(_message.Message):
    __slots__ = ("memories", "commit", "index_pending")
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    INDEX_PENDING_FIELD_NUMBER: _ClassVar[int]
    memories: _containers.RepeatedCompositeFieldContainer[_memory_pb2.Memory]
    commit: _commit_pb2.Commit
    index_pending: bool
    def __init__(self, memories: _Optional[_Iterable[_Union[_memory_pb2.Memory, _Mapping]]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., index_pending: bool = ...) -> None: ...

class BulkAddMemoriesRequest(_message.Message):
    __slots__ = ("header", "batch", "finish")
    class Header(_message.Message):
        __slots__ = ("parent", "request_id", "cause", "expected_revision")
        PARENT_FIELD_NUMBER: _ClassVar[int]
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        CAUSE_FIELD_NUMBER: _ClassVar[int]
        EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
        parent: str
        request_id: str
        cause: str
        expected_revision: int
        def __init__(self, parent: _Optional[str] = ..., request_id: _Optional[str] = ..., cause: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...
    class Batch(_message.Message):
        __slots__ = ("memories",)
        MEMORIES_FIELD_NUMBER: _ClassVar[int]
        memories: _containers.RepeatedCompositeFieldContainer[_memory_pb2.Memory]
        def __init__(self, memories: _Optional[_Iterable[_Union[_memory_pb2.Memory, _Mapping]]] = ...) -> None: ...
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    header: BulkAddMemoriesRequest.Header
    batch: BulkAddMemoriesRequest.Batch
    finish: bool
    def __init__(self, header: _Optional[_Union[BulkAddMemoriesRequest.Header, _Mapping]] = ..., batch: _Optional[_Union[BulkAddMemoriesRequest.Batch, _Mapping]] = ..., finish: bool = ...) -> None: ...

class BulkAddMemoriesResponse(_message.Message):
    __slots__ = ("commit", "memory_count", "index_pending")
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_COUNT_FIELD_NUMBER: _ClassVar[int]
    INDEX_PENDING_FIELD_NUMBER: _ClassVar[int]
    commit: _commit_pb2.Commit
    memory_count: int
    index_pending: bool
    def __init__(self, commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., memory_count: _Optional[int] = ..., index_pending: bool = ...) -> None: ...

class GetMemoryRequest(_message.Message):
    __slots__ = ("name", "as_of_revision", "view", "include_vectors")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AS_OF_REVISION_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    as_of_revision: int
    view: _common_pb2.View
    include_vectors: bool
    def __init__(self, name: _Optional[str] = ..., as_of_revision: _Optional[int] = ..., view: _Optional[_Union[_common_pb2.View, str]] = ..., include_vectors: bool = ...) -> None: ...

class GetMemoryResponse(_message.Message):
    __slots__ = ("memory", "sealed")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    memory: _memory_pb2.Memory
    sealed: _common_pb2.Sealed
    def __init__(self, memory: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., sealed: _Optional[_Union[_common_pb2.Sealed, _Mapping]] = ...) -> None: ...

class BatchGetMemoriesRequest(_message.Message):
    __slots__ = ("parent", "names", "as_of_revision")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    AS_OF_REVISION_FIELD_NUMBER: _ClassVar[int]
    parent: str
    names: _containers.RepeatedScalarFieldContainer[str]
    as_of_revision: int
    def __init__(self, parent: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., as_of_revision: _Optional[int] = ...) -> None: ...

class BatchGetMemoriesResponse(_message.Message):
    __slots__ = ("memories",)
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    memories: _containers.RepeatedCompositeFieldContainer[_memory_pb2.Memory]
    def __init__(self, memories: _Optional[_Iterable[_Union[_memory_pb2.Memory, _Mapping]]] = ...) -> None: ...

class ListMemoriesRequest(_message.Message):
    __slots__ = ("parent", "filter", "page_size", "page_token", "as_of_revision", "show_deleted")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    AS_OF_REVISION_FIELD_NUMBER: _ClassVar[int]
    SHOW_DELETED_FIELD_NUMBER: _ClassVar[int]
    parent: str
    filter: str
    page_size: int
    page_token: str
    as_of_revision: int
    show_deleted: bool
    def __init__(self, parent: _Optional[str] = ..., filter: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., as_of_revision: _Optional[int] = ..., show_deleted: bool = ...) -> None: ...

class ListMemoriesResponse(_message.Message):
    __slots__ = ("memories", "next_page_token")
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    memories: _containers.RepeatedCompositeFieldContainer[_memory_pb2.Memory]
    next_page_token: str
    def __init__(self, memories: _Optional[_Iterable[_Union[_memory_pb2.Memory, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateMemoryRequest(_message.Message):
    __slots__ = ("memory", "update_mask", "request_id", "cause", "expected_revision")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    memory: _memory_pb2.Memory
    update_mask: _field_mask_pb2.FieldMask
    request_id: str
    cause: str
    expected_revision: int
    def __init__(self, memory: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., request_id: _Optional[str] = ..., cause: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class UpdateMemoryResponse(_message.Message):
    __slots__ = ("memory", "commit", "index_pending")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    INDEX_PENDING_FIELD_NUMBER: _ClassVar[int]
    memory: _memory_pb2.Memory
    commit: _commit_pb2.Commit
    index_pending: bool
    def __init__(self, memory: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., index_pending: bool = ...) -> None: ...

class TransitionMemoriesRequest(_message.Message):
    __slots__ = ("parent", "names", "state", "request_id", "cause", "expected_revision")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    parent: str
    names: _containers.RepeatedScalarFieldContainer[str]
    state: _memory_pb2.MemoryState
    request_id: str
    cause: str
    expected_revision: int
    def __init__(self, parent: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., state: _Optional[_Union[_memory_pb2.MemoryState, str]] = ..., request_id: _Optional[str] = ..., cause: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class TransitionMemoriesResponse(_message.Message):
    __slots__ = ("memories", "commit", "index_pending")
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    INDEX_PENDING_FIELD_NUMBER: _ClassVar[int]
    memories: _containers.RepeatedCompositeFieldContainer[_memory_pb2.Memory]
    commit: _commit_pb2.Commit
    index_pending: bool
    def __init__(self, memories: _Optional[_Iterable[_Union[_memory_pb2.Memory, _Mapping]]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., index_pending: bool = ...) -> None: ...

class MergeMemoriesRequest(_message.Message):
    __slots__ = ("parent", "sources", "target", "merged", "request_id", "cause", "expected_revision")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MERGED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    parent: str
    sources: _containers.RepeatedScalarFieldContainer[str]
    target: str
    merged: _memory_pb2.Memory
    request_id: str
    cause: str
    expected_revision: int
    def __init__(self, parent: _Optional[str] = ..., sources: _Optional[_Iterable[str]] = ..., target: _Optional[str] = ..., merged: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., request_id: _Optional[str] = ..., cause: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class MergeMemoriesResponse(_message.Message):
    __slots__ = ("memory", "commit", "index_pending")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    INDEX_PENDING_FIELD_NUMBER: _ClassVar[int]
    memory: _memory_pb2.Memory
    commit: _commit_pb2.Commit
    index_pending: bool
    def __init__(self, memory: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., index_pending: bool = ...) -> None: ...

class DeleteMemoriesRequest(_message.Message):
    __slots__ = ("parent", "names", "request_id", "cause", "etag", "expected_revision")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    parent: str
    names: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    cause: str
    etag: str
    expected_revision: int
    def __init__(self, parent: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ..., cause: _Optional[str] = ..., etag: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class DeleteMemoriesResponse(_message.Message):
    __slots__ = ("commit", "index_pending")
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    INDEX_PENDING_FIELD_NUMBER: _ClassVar[int]
    commit: _commit_pb2.Commit
    index_pending: bool
    def __init__(self, commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., index_pending: bool = ...) -> None: ...

class PurgeMemoriesRequest(_message.Message):
    __slots__ = ("parent", "names", "reason", "request_id", "expected_revision")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    parent: str
    names: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    request_id: str
    expected_revision: int
    def __init__(self, parent: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class PurgeMemoriesResponse(_message.Message):
    __slots__ = ("commit", "derived", "compaction_job", "index_pending")
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    DERIVED_FIELD_NUMBER: _ClassVar[int]
    COMPACTION_JOB_FIELD_NUMBER: _ClassVar[int]
    INDEX_PENDING_FIELD_NUMBER: _ClassVar[int]
    commit: _commit_pb2.Commit
    derived: _containers.RepeatedScalarFieldContainer[str]
    compaction_job: str
    index_pending: bool
    def __init__(self, commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., derived: _Optional[_Iterable[str]] = ..., compaction_job: _Optional[str] = ..., index_pending: bool = ...) -> None: ...

class ListMemoryRevisionsRequest(_message.Message):
    __slots__ = ("name", "page_size", "page_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    page_size: int
    page_token: str
    def __init__(self, name: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListMemoryRevisionsResponse(_message.Message):
    __slots__ = ("memories", "next_page_token")
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    memories: _containers.RepeatedCompositeFieldContainer[_memory_pb2.Memory]
    next_page_token: str
    def __init__(self, memories: _Optional[_Iterable[_Union[_memory_pb2.Memory, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class SearchMemoriesRequest(_message.Message):
    __slots__ = ("cubes", "query", "vector", "filter", "top_k", "mode", "as_of_revision", "as_of_time", "explain", "rerank")
    CUBES_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_REVISION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    cubes: _containers.RepeatedScalarFieldContainer[str]
    query: str
    vector: _memory_pb2.Vector
    filter: str
    top_k: int
    mode: SearchMode
    as_of_revision: int
    as_of_time: _timestamp_pb2.Timestamp
    explain: bool
    rerank: str
    def __init__(self, cubes: _Optional[_Iterable[str]] = ..., query: _Optional[str] = ..., vector: _Optional[_Union[_memory_pb2.Vector, _Mapping]] = ..., filter: _Optional[str] = ..., top_k: _Optional[int] = ..., mode: _Optional[_Union[SearchMode, str]] = ..., as_of_revision: _Optional[int] = ..., as_of_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., explain: bool = ..., rerank: _Optional[str] = ...) -> None: ...

class ChannelScore(_message.Message):
    __slots__ = ("channel", "rank", "score", "contribution")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    channel: str
    rank: int
    score: float
    contribution: float
    def __init__(self, channel: _Optional[str] = ..., rank: _Optional[int] = ..., score: _Optional[float] = ..., contribution: _Optional[float] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("channels", "matched_terms", "path")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    MATCHED_TERMS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    channels: _containers.RepeatedCompositeFieldContainer[ChannelScore]
    matched_terms: _containers.RepeatedScalarFieldContainer[str]
    path: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, channels: _Optional[_Iterable[_Union[ChannelScore, _Mapping]]] = ..., matched_terms: _Optional[_Iterable[str]] = ..., path: _Optional[_Iterable[str]] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("memory", "score", "explanation")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    memory: _memory_pb2.Memory
    score: float
    explanation: Explanation
    def __init__(self, memory: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., score: _Optional[float] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class StaleCube(_message.Message):
    __slots__ = ("cube", "indexed_revision")
    CUBE_FIELD_NUMBER: _ClassVar[int]
    INDEXED_REVISION_FIELD_NUMBER: _ClassVar[int]
    cube: str
    indexed_revision: int
    def __init__(self, cube: _Optional[str] = ..., indexed_revision: _Optional[int] = ...) -> None: ...

class SearchMemoriesResponse(_message.Message):
    __slots__ = ("hits", "unreachable", "stale", "notices", "size_limited")
    HITS_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    SIZE_LIMITED_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    unreachable: _containers.RepeatedScalarFieldContainer[str]
    stale: _containers.RepeatedCompositeFieldContainer[StaleCube]
    notices: _containers.RepeatedScalarFieldContainer[str]
    size_limited: bool
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., unreachable: _Optional[_Iterable[str]] = ..., stale: _Optional[_Iterable[_Union[StaleCube, _Mapping]]] = ..., notices: _Optional[_Iterable[str]] = ..., size_limited: bool = ...) -> None: ...
