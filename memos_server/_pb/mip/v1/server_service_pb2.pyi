import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from memos_server._pb.mip.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UnknownFields(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN_FIELDS_UNSPECIFIED: _ClassVar[UnknownFields]
    UNKNOWN_FIELDS_KEPT: _ClassVar[UnknownFields]
    UNKNOWN_FIELDS_REFUSED: _ClassVar[UnknownFields]
UNKNOWN_FIELDS_UNSPECIFIED: UnknownFields
UNKNOWN_FIELDS_KEPT: UnknownFields
UNKNOWN_FIELDS_REFUSED: UnknownFields

class GetCapabilitiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCapabilitiesResponse(_message.Message):
    __slots__ = ("protocol_version", "server_name", "server_version", "services", "features", "payloads", "extension_types", "unknown_fields", "embedding_models", "limits", "audience", "notices", "levels")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    EXTENSION_TYPES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELDS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_MODELS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: str
    server_name: str
    server_version: str
    services: _containers.RepeatedScalarFieldContainer[str]
    features: _containers.RepeatedScalarFieldContainer[str]
    payloads: _containers.RepeatedScalarFieldContainer[str]
    extension_types: _containers.RepeatedScalarFieldContainer[str]
    unknown_fields: UnknownFields
    embedding_models: _containers.RepeatedCompositeFieldContainer[EmbeddingModel]
    limits: Limits
    audience: str
    notices: _containers.RepeatedScalarFieldContainer[str]
    levels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, protocol_version: _Optional[str] = ..., server_name: _Optional[str] = ..., server_version: _Optional[str] = ..., services: _Optional[_Iterable[str]] = ..., features: _Optional[_Iterable[str]] = ..., payloads: _Optional[_Iterable[str]] = ..., extension_types: _Optional[_Iterable[str]] = ..., unknown_fields: _Optional[_Union[UnknownFields, str]] = ..., embedding_models: _Optional[_Iterable[_Union[EmbeddingModel, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., audience: _Optional[str] = ..., notices: _Optional[_Iterable[str]] = ..., levels: _Optional[_Iterable[str]] = ...) -> None: ...

class EmbeddingModel(_message.Message):
    __slots__ = ("name", "dimension", "max_tokens", "available", "is_default", "runtime")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    dimension: int
    max_tokens: int
    available: bool
    is_default: bool
    runtime: str
    def __init__(self, name: _Optional[str] = ..., dimension: _Optional[int] = ..., max_tokens: _Optional[int] = ..., available: bool = ..., is_default: bool = ..., runtime: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_request_bytes", "max_response_bytes", "max_batch_memories", "max_page_size", "max_top_k", "max_blob_bytes", "request_id_retention_seconds", "max_search_cubes", "max_bulk_memories", "max_bulk_bytes", "max_calls_per_second", "max_open_streams", "max_bytes_per_second", "max_unfinished_upload_bytes")
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_MEMORIES_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_TOP_K_FIELD_NUMBER: _ClassVar[int]
    MAX_BLOB_BYTES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_RETENTION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_SEARCH_CUBES_FIELD_NUMBER: _ClassVar[int]
    MAX_BULK_MEMORIES_FIELD_NUMBER: _ClassVar[int]
    MAX_BULK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CALLS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    MAX_OPEN_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    MAX_UNFINISHED_UPLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_request_bytes: int
    max_response_bytes: int
    max_batch_memories: int
    max_page_size: int
    max_top_k: int
    max_blob_bytes: int
    request_id_retention_seconds: int
    max_search_cubes: int
    max_bulk_memories: int
    max_bulk_bytes: int
    max_calls_per_second: int
    max_open_streams: int
    max_bytes_per_second: int
    max_unfinished_upload_bytes: int
    def __init__(self, max_request_bytes: _Optional[int] = ..., max_response_bytes: _Optional[int] = ..., max_batch_memories: _Optional[int] = ..., max_page_size: _Optional[int] = ..., max_top_k: _Optional[int] = ..., max_blob_bytes: _Optional[int] = ..., request_id_retention_seconds: _Optional[int] = ..., max_search_cubes: _Optional[int] = ..., max_bulk_memories: _Optional[int] = ..., max_bulk_bytes: _Optional[int] = ..., max_calls_per_second: _Optional[int] = ..., max_open_streams: _Optional[int] = ..., max_bytes_per_second: _Optional[int] = ..., max_unfinished_upload_bytes: _Optional[int] = ...) -> None: ...

class GetServerStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerStatsResponse(_message.Message):
    __slots__ = ("start_time", "observe_time", "calls", "latency_bounds", "open_streams", "waiting_writes", "waiting_embeddings", "index_lags", "lagging_indexes", "unfinished_jobs", "dependencies", "process")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    OBSERVE_TIME_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_BOUNDS_FIELD_NUMBER: _ClassVar[int]
    OPEN_STREAMS_FIELD_NUMBER: _ClassVar[int]
    WAITING_WRITES_FIELD_NUMBER: _ClassVar[int]
    WAITING_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    INDEX_LAGS_FIELD_NUMBER: _ClassVar[int]
    LAGGING_INDEXES_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_JOBS_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    start_time: _timestamp_pb2.Timestamp
    observe_time: _timestamp_pb2.Timestamp
    calls: _containers.RepeatedCompositeFieldContainer[CallStats]
    latency_bounds: _containers.RepeatedScalarFieldContainer[float]
    open_streams: int
    waiting_writes: int
    waiting_embeddings: int
    index_lags: _containers.RepeatedCompositeFieldContainer[IndexLag]
    lagging_indexes: int
    unfinished_jobs: int
    dependencies: _containers.RepeatedCompositeFieldContainer[DependencyHealth]
    process: ProcessStats
    def __init__(self, start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., observe_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., calls: _Optional[_Iterable[_Union[CallStats, _Mapping]]] = ..., latency_bounds: _Optional[_Iterable[float]] = ..., open_streams: _Optional[int] = ..., waiting_writes: _Optional[int] = ..., waiting_embeddings: _Optional[int] = ..., index_lags: _Optional[_Iterable[_Union[IndexLag, _Mapping]]] = ..., lagging_indexes: _Optional[int] = ..., unfinished_jobs: _Optional[int] = ..., dependencies: _Optional[_Iterable[_Union[DependencyHealth, _Mapping]]] = ..., process: _Optional[_Union[ProcessStats, _Mapping]] = ...) -> None: ...

class CallStats(_message.Message):
    __slots__ = ("method", "running", "succeeded", "failed", "latency_counts", "latency_sum", "request_bytes", "response_bytes")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    LATENCY_COUNTS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_SUM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    method: str
    running: int
    succeeded: int
    failed: _containers.RepeatedCompositeFieldContainer[ReasonCount]
    latency_counts: _containers.RepeatedScalarFieldContainer[int]
    latency_sum: float
    request_bytes: int
    response_bytes: int
    def __init__(self, method: _Optional[str] = ..., running: _Optional[int] = ..., succeeded: _Optional[int] = ..., failed: _Optional[_Iterable[_Union[ReasonCount, _Mapping]]] = ..., latency_counts: _Optional[_Iterable[int]] = ..., latency_sum: _Optional[float] = ..., request_bytes: _Optional[int] = ..., response_bytes: _Optional[int] = ...) -> None: ...

class ReasonCount(_message.Message):
    __slots__ = ("reason", "count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    count: int
    def __init__(self, reason: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class IndexLag(_message.Message):
    __slots__ = ("cube", "indexed_revision", "revision")
    CUBE_FIELD_NUMBER: _ClassVar[int]
    INDEXED_REVISION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    cube: str
    indexed_revision: int
    revision: int
    def __init__(self, cube: _Optional[str] = ..., indexed_revision: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class DependencyHealth(_message.Message):
    __slots__ = ("name", "backend", "serving", "problem")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    name: str
    backend: str
    serving: bool
    problem: str
    def __init__(self, name: _Optional[str] = ..., backend: _Optional[str] = ..., serving: bool = ..., problem: _Optional[str] = ...) -> None: ...

class ProcessStats(_message.Message):
    __slots__ = ("resident_bytes", "cpu_seconds", "open_files", "data_bytes", "free_disk_bytes")
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FILES_FIELD_NUMBER: _ClassVar[int]
    DATA_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    resident_bytes: int
    cpu_seconds: float
    open_files: int
    data_bytes: int
    free_disk_bytes: int
    def __init__(self, resident_bytes: _Optional[int] = ..., cpu_seconds: _Optional[float] = ..., open_files: _Optional[int] = ..., data_bytes: _Optional[int] = ..., free_disk_bytes: _Optional[int] = ...) -> None: ...
