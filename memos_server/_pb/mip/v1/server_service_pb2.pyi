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
    __slots__ = ("protocol_version", "server_name", "server_version", "services", "features", "payloads", "extension_types", "unknown_fields", "embedding_models", "limits", "audience", "notices")
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
    def __init__(self, protocol_version: _Optional[str] = ..., server_name: _Optional[str] = ..., server_version: _Optional[str] = ..., services: _Optional[_Iterable[str]] = ..., features: _Optional[_Iterable[str]] = ..., payloads: _Optional[_Iterable[str]] = ..., extension_types: _Optional[_Iterable[str]] = ..., unknown_fields: _Optional[_Union[UnknownFields, str]] = ..., embedding_models: _Optional[_Iterable[_Union[EmbeddingModel, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., audience: _Optional[str] = ..., notices: _Optional[_Iterable[str]] = ...) -> None: ...

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
    __slots__ = ("max_request_bytes", "max_response_bytes", "max_batch_memories", "max_page_size", "max_top_k", "max_blob_bytes", "request_id_retention_seconds", "max_search_cubes")
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_MEMORIES_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_TOP_K_FIELD_NUMBER: _ClassVar[int]
    MAX_BLOB_BYTES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_RETENTION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_SEARCH_CUBES_FIELD_NUMBER: _ClassVar[int]
    max_request_bytes: int
    max_response_bytes: int
    max_batch_memories: int
    max_page_size: int
    max_top_k: int
    max_blob_bytes: int
    request_id_retention_seconds: int
    max_search_cubes: int
    def __init__(self, max_request_bytes: _Optional[int] = ..., max_response_bytes: _Optional[int] = ..., max_batch_memories: _Optional[int] = ..., max_page_size: _Optional[int] = ..., max_top_k: _Optional[int] = ..., max_blob_bytes: _Optional[int] = ..., request_id_retention_seconds: _Optional[int] = ..., max_search_cubes: _Optional[int] = ...) -> None: ...
