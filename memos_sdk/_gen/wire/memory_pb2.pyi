import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from memos_sdk._gen.wire import common_pb2 as _common_pb2
from memos_sdk._gen.wire import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemoryState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMORY_STATE_UNSPECIFIED: _ClassVar[MemoryState]
    MEMORY_STATE_ACTIVE: _ClassVar[MemoryState]
    MEMORY_STATE_MERGED: _ClassVar[MemoryState]
    MEMORY_STATE_ARCHIVED: _ClassVar[MemoryState]
    MEMORY_STATE_DELETED: _ClassVar[MemoryState]
    MEMORY_STATE_PURGED: _ClassVar[MemoryState]

class ProvenanceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROVENANCE_KIND_UNSPECIFIED: _ClassVar[ProvenanceKind]
    PROVENANCE_KIND_MESSAGE: _ClassVar[ProvenanceKind]
    PROVENANCE_KIND_DOCUMENT: _ClassVar[ProvenanceKind]
    PROVENANCE_KIND_MEMORY: _ClassVar[ProvenanceKind]
    PROVENANCE_KIND_TOOL: _ClassVar[ProvenanceKind]
    PROVENANCE_KIND_IMPORT: _ClassVar[ProvenanceKind]

class Dtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[Dtype]
    DTYPE_FLOAT32: _ClassVar[Dtype]
    DTYPE_FLOAT16: _ClassVar[Dtype]
MEMORY_STATE_UNSPECIFIED: MemoryState
MEMORY_STATE_ACTIVE: MemoryState
MEMORY_STATE_MERGED: MemoryState
MEMORY_STATE_ARCHIVED: MemoryState
MEMORY_STATE_DELETED: MemoryState
MEMORY_STATE_PURGED: MemoryState
PROVENANCE_KIND_UNSPECIFIED: ProvenanceKind
PROVENANCE_KIND_MESSAGE: ProvenanceKind
PROVENANCE_KIND_DOCUMENT: ProvenanceKind
PROVENANCE_KIND_MEMORY: ProvenanceKind
PROVENANCE_KIND_TOOL: ProvenanceKind
PROVENANCE_KIND_IMPORT: ProvenanceKind
DTYPE_UNSPECIFIED: Dtype
DTYPE_FLOAT32: Dtype
DTYPE_FLOAT16: Dtype

class Plaintext(_message.Message):
    __slots__ = ("text", "media_type", "language", "kind")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    text: str
    media_type: str
    language: str
    kind: str
    def __init__(self, text: _Optional[str] = ..., media_type: _Optional[str] = ..., language: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class BlobRef(_message.Message):
    __slots__ = ("digest", "size", "media_type", "title")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size: int
    media_type: str
    title: str
    def __init__(self, digest: _Optional[str] = ..., size: _Optional[int] = ..., media_type: _Optional[str] = ..., title: _Optional[str] = ...) -> None: ...

class KvCache(_message.Message):
    __slots__ = ("token_count", "token_ids", "position_offset", "block_size", "block_hashes", "dtype")
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    POSITION_OFFSET_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_HASHES_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    token_count: int
    token_ids: bytes
    position_offset: int
    block_size: int
    block_hashes: bytes
    dtype: str
    def __init__(self, token_count: _Optional[int] = ..., token_ids: _Optional[bytes] = ..., position_offset: _Optional[int] = ..., block_size: _Optional[int] = ..., block_hashes: _Optional[bytes] = ..., dtype: _Optional[str] = ...) -> None: ...

class HiddenStates(_message.Message):
    __slots__ = ("layer", "rows", "dimension", "dtype")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    layer: int
    rows: int
    dimension: int
    dtype: str
    def __init__(self, layer: _Optional[int] = ..., rows: _Optional[int] = ..., dimension: _Optional[int] = ..., dtype: _Optional[str] = ...) -> None: ...

class Activation(_message.Message):
    __slots__ = ("model_fingerprint", "kv_cache", "hidden_states", "blobs")
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_STATES_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    model_fingerprint: str
    kv_cache: KvCache
    hidden_states: HiddenStates
    blobs: _containers.RepeatedCompositeFieldContainer[BlobRef]
    def __init__(self, model_fingerprint: _Optional[str] = ..., kv_cache: _Optional[_Union[KvCache, _Mapping]] = ..., hidden_states: _Optional[_Union[HiddenStates, _Mapping]] = ..., blobs: _Optional[_Iterable[_Union[BlobRef, _Mapping]]] = ...) -> None: ...

class Parametric(_message.Message):
    __slots__ = ("base_fingerprint", "method", "blobs", "recipe_json", "evaluation_json")
    BASE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    RECIPE_JSON_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_JSON_FIELD_NUMBER: _ClassVar[int]
    base_fingerprint: str
    method: str
    blobs: _containers.RepeatedCompositeFieldContainer[BlobRef]
    recipe_json: str
    evaluation_json: str
    def __init__(self, base_fingerprint: _Optional[str] = ..., method: _Optional[str] = ..., blobs: _Optional[_Iterable[_Union[BlobRef, _Mapping]]] = ..., recipe_json: _Optional[str] = ..., evaluation_json: _Optional[str] = ...) -> None: ...

class Extension(_message.Message):
    __slots__ = ("type", "data", "text")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    type: str
    data: bytes
    text: str
    def __init__(self, type: _Optional[str] = ..., data: _Optional[bytes] = ..., text: _Optional[str] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("kind", "source", "speaker", "time", "line_start", "line_end", "revision", "digest")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SPEAKER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    LINE_START_FIELD_NUMBER: _ClassVar[int]
    LINE_END_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    kind: ProvenanceKind
    source: str
    speaker: str
    time: _timestamp_pb2.Timestamp
    line_start: int
    line_end: int
    revision: int
    digest: str
    def __init__(self, kind: _Optional[_Union[ProvenanceKind, str]] = ..., source: _Optional[str] = ..., speaker: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., line_start: _Optional[int] = ..., line_end: _Optional[int] = ..., revision: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("model", "dtype", "dimension", "data")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    model: str
    dtype: Dtype
    dimension: int
    data: bytes
    def __init__(self, model: _Optional[str] = ..., dtype: _Optional[_Union[Dtype, str]] = ..., dimension: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Memory(_message.Message):
    __slots__ = ("plaintext", "activation", "parametric", "extension", "tags", "labels", "attributes_json", "provenance", "valid_from", "valid_until", "confidence", "session", "name", "uid", "revision", "etag", "state", "merged_into", "sensitivity", "owner", "create_time", "update_time", "vectors", "commitment")
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    PARAMETRIC_FIELD_NUMBER: _ClassVar[int]
    EXTENSION_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_JSON_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    VALID_FROM_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MERGED_INTO_FIELD_NUMBER: _ClassVar[int]
    SENSITIVITY_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    plaintext: Plaintext
    activation: Activation
    parametric: Parametric
    extension: Extension
    tags: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedCompositeFieldContainer[_common_pb2.Label]
    attributes_json: str
    provenance: _containers.RepeatedCompositeFieldContainer[Provenance]
    valid_from: _timestamp_pb2.Timestamp
    valid_until: _timestamp_pb2.Timestamp
    confidence: float
    session: str
    name: str
    uid: str
    revision: int
    etag: str
    state: MemoryState
    merged_into: str
    sensitivity: _common_pb2.Sensitivity
    owner: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    vectors: _containers.RepeatedCompositeFieldContainer[Vector]
    commitment: bytes
    def __init__(self, plaintext: _Optional[_Union[Plaintext, _Mapping]] = ..., activation: _Optional[_Union[Activation, _Mapping]] = ..., parametric: _Optional[_Union[Parametric, _Mapping]] = ..., extension: _Optional[_Union[Extension, _Mapping]] = ..., tags: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[_Union[_common_pb2.Label, _Mapping]]] = ..., attributes_json: _Optional[str] = ..., provenance: _Optional[_Iterable[_Union[Provenance, _Mapping]]] = ..., valid_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., confidence: _Optional[float] = ..., session: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., revision: _Optional[int] = ..., etag: _Optional[str] = ..., state: _Optional[_Union[MemoryState, str]] = ..., merged_into: _Optional[str] = ..., sensitivity: _Optional[_Union[_common_pb2.Sensitivity, str]] = ..., owner: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., vectors: _Optional[_Iterable[_Union[Vector, _Mapping]]] = ..., commitment: _Optional[bytes] = ...) -> None: ...

class MemoryContent(_message.Message):
    __slots__ = ("plaintext", "activation", "parametric", "extension", "tags", "labels", "attributes_json", "provenance", "valid_from", "valid_until", "confidence", "session")
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    PARAMETRIC_FIELD_NUMBER: _ClassVar[int]
    EXTENSION_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_JSON_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    VALID_FROM_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    plaintext: Plaintext
    activation: Activation
    parametric: Parametric
    extension: Extension
    tags: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedCompositeFieldContainer[_common_pb2.Label]
    attributes_json: str
    provenance: _containers.RepeatedCompositeFieldContainer[Provenance]
    valid_from: _timestamp_pb2.Timestamp
    valid_until: _timestamp_pb2.Timestamp
    confidence: float
    session: str
    def __init__(self, plaintext: _Optional[_Union[Plaintext, _Mapping]] = ..., activation: _Optional[_Union[Activation, _Mapping]] = ..., parametric: _Optional[_Union[Parametric, _Mapping]] = ..., extension: _Optional[_Union[Extension, _Mapping]] = ..., tags: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[_Union[_common_pb2.Label, _Mapping]]] = ..., attributes_json: _Optional[str] = ..., provenance: _Optional[_Iterable[_Union[Provenance, _Mapping]]] = ..., valid_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., confidence: _Optional[float] = ..., session: _Optional[str] = ...) -> None: ...
