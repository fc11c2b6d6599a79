import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from memos_sdk._gen.wire import common_pb2 as _common_pb2
from memos_sdk._gen.wire import memory_pb2 as _memory_pb2
from memos_sdk._gen.wire import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Cube(_message.Message):
    __slots__ = ("display_name", "labels", "embedding_model", "plaintext_profile", "embedding_dimension", "name", "uid", "owner", "revision", "head_digest", "etag", "create_time", "update_time", "state")
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_PROFILE_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    display_name: str
    labels: _containers.RepeatedCompositeFieldContainer[_common_pb2.Label]
    embedding_model: str
    plaintext_profile: str
    embedding_dimension: int
    name: str
    uid: str
    owner: str
    revision: int
    head_digest: bytes
    etag: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    state: _memory_pb2.MemoryState
    def __init__(self, display_name: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[_common_pb2.Label, _Mapping]]] = ..., embedding_model: _Optional[str] = ..., plaintext_profile: _Optional[str] = ..., embedding_dimension: _Optional[int] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., owner: _Optional[str] = ..., revision: _Optional[int] = ..., head_digest: _Optional[bytes] = ..., etag: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[_memory_pb2.MemoryState, str]] = ...) -> None: ...

class CubeContent(_message.Message):
    __slots__ = ("display_name", "labels", "embedding_model", "plaintext_profile", "embedding_dimension")
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_PROFILE_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    display_name: str
    labels: _containers.RepeatedCompositeFieldContainer[_common_pb2.Label]
    embedding_model: str
    plaintext_profile: str
    embedding_dimension: int
    def __init__(self, display_name: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[_common_pb2.Label, _Mapping]]] = ..., embedding_model: _Optional[str] = ..., plaintext_profile: _Optional[str] = ..., embedding_dimension: _Optional[int] = ...) -> None: ...
