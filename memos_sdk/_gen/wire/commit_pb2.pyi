import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from memos_sdk._gen.wire import common_pb2 as _common_pb2
from memos_sdk._gen.wire import memory_pb2 as _memory_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChangeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANGE_KIND_UNSPECIFIED: _ClassVar[ChangeKind]
    CHANGE_KIND_MEMORY_ADDED: _ClassVar[ChangeKind]
    CHANGE_KIND_MEMORY_UPDATED: _ClassVar[ChangeKind]
    CHANGE_KIND_MEMORY_TRANSITIONED: _ClassVar[ChangeKind]
    CHANGE_KIND_MEMORY_MERGED: _ClassVar[ChangeKind]
    CHANGE_KIND_MEMORY_DELETED: _ClassVar[ChangeKind]
    CHANGE_KIND_MEMORY_PURGED: _ClassVar[ChangeKind]
    CHANGE_KIND_MEMORY_ROLLED_BACK: _ClassVar[ChangeKind]
    CHANGE_KIND_RELATION_CREATED: _ClassVar[ChangeKind]
    CHANGE_KIND_RELATION_DELETED: _ClassVar[ChangeKind]
    CHANGE_KIND_RELATION_ROLLED_BACK: _ClassVar[ChangeKind]
    CHANGE_KIND_CUBE_CREATED: _ClassVar[ChangeKind]
    CHANGE_KIND_CUBE_UPDATED: _ClassVar[ChangeKind]
    CHANGE_KIND_CUBE_DELETED: _ClassVar[ChangeKind]
    CHANGE_KIND_CUBE_UNDELETED: _ClassVar[ChangeKind]
    CHANGE_KIND_CUBE_PURGED: _ClassVar[ChangeKind]
    CHANGE_KIND_CUBE_ROLLED_BACK: _ClassVar[ChangeKind]
    CHANGE_KIND_SESSION_CREATED: _ClassVar[ChangeKind]
    CHANGE_KIND_SESSION_ENDED: _ClassVar[ChangeKind]
CHANGE_KIND_UNSPECIFIED: ChangeKind
CHANGE_KIND_MEMORY_ADDED: ChangeKind
CHANGE_KIND_MEMORY_UPDATED: ChangeKind
CHANGE_KIND_MEMORY_TRANSITIONED: ChangeKind
CHANGE_KIND_MEMORY_MERGED: ChangeKind
CHANGE_KIND_MEMORY_DELETED: ChangeKind
CHANGE_KIND_MEMORY_PURGED: ChangeKind
CHANGE_KIND_MEMORY_ROLLED_BACK: ChangeKind
CHANGE_KIND_RELATION_CREATED: ChangeKind
CHANGE_KIND_RELATION_DELETED: ChangeKind
CHANGE_KIND_RELATION_ROLLED_BACK: ChangeKind
CHANGE_KIND_CUBE_CREATED: ChangeKind
CHANGE_KIND_CUBE_UPDATED: ChangeKind
CHANGE_KIND_CUBE_DELETED: ChangeKind
CHANGE_KIND_CUBE_UNDELETED: ChangeKind
CHANGE_KIND_CUBE_PURGED: ChangeKind
CHANGE_KIND_CUBE_ROLLED_BACK: ChangeKind
CHANGE_KIND_SESSION_CREATED: ChangeKind
CHANGE_KIND_SESSION_ENDED: ChangeKind

class Change(_message.Message):
    __slots__ = ("kind", "name", "uid", "before_commitment", "after_commitment", "before_state", "after_state", "merged_into", "sensitivity", "owner", "source", "target", "type", "weight")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    AFTER_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_STATE_FIELD_NUMBER: _ClassVar[int]
    AFTER_STATE_FIELD_NUMBER: _ClassVar[int]
    MERGED_INTO_FIELD_NUMBER: _ClassVar[int]
    SENSITIVITY_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    kind: ChangeKind
    name: str
    uid: str
    before_commitment: bytes
    after_commitment: bytes
    before_state: _memory_pb2.MemoryState
    after_state: _memory_pb2.MemoryState
    merged_into: str
    sensitivity: _common_pb2.Sensitivity
    owner: str
    source: str
    target: str
    type: str
    weight: float
    def __init__(self, kind: _Optional[_Union[ChangeKind, str]] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., before_commitment: _Optional[bytes] = ..., after_commitment: _Optional[bytes] = ..., before_state: _Optional[_Union[_memory_pb2.MemoryState, str]] = ..., after_state: _Optional[_Union[_memory_pb2.MemoryState, str]] = ..., merged_into: _Optional[str] = ..., sensitivity: _Optional[_Union[_common_pb2.Sensitivity, str]] = ..., owner: _Optional[str] = ..., source: _Optional[str] = ..., target: _Optional[str] = ..., type: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("cube_uid", "revision", "digest")
    CUBE_UID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    cube_uid: str
    revision: int
    digest: bytes
    def __init__(self, cube_uid: _Optional[str] = ..., revision: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class CommitHeader(_message.Message):
    __slots__ = ("cube_uid", "revision", "parent_digest", "merged_heads", "principal", "cause", "create_time", "request_id", "change_count", "changes_digest")
    CUBE_UID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PARENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MERGED_HEADS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_DIGEST_FIELD_NUMBER: _ClassVar[int]
    cube_uid: str
    revision: int
    parent_digest: bytes
    merged_heads: _containers.RepeatedCompositeFieldContainer[Head]
    principal: str
    cause: str
    create_time: _timestamp_pb2.Timestamp
    request_id: str
    change_count: int
    changes_digest: bytes
    def __init__(self, cube_uid: _Optional[str] = ..., revision: _Optional[int] = ..., parent_digest: _Optional[bytes] = ..., merged_heads: _Optional[_Iterable[_Union[Head, _Mapping]]] = ..., principal: _Optional[str] = ..., cause: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., request_id: _Optional[str] = ..., change_count: _Optional[int] = ..., changes_digest: _Optional[bytes] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("cube_uid", "revision", "parent_digest", "merged_heads", "principal", "cause", "create_time", "request_id", "change_count", "changes_digest", "name", "digest")
    CUBE_UID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PARENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MERGED_HEADS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    cube_uid: str
    revision: int
    parent_digest: bytes
    merged_heads: _containers.RepeatedCompositeFieldContainer[Head]
    principal: str
    cause: str
    create_time: _timestamp_pb2.Timestamp
    request_id: str
    change_count: int
    changes_digest: bytes
    name: str
    digest: bytes
    def __init__(self, cube_uid: _Optional[str] = ..., revision: _Optional[int] = ..., parent_digest: _Optional[bytes] = ..., merged_heads: _Optional[_Iterable[_Union[Head, _Mapping]]] = ..., principal: _Optional[str] = ..., cause: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., request_id: _Optional[str] = ..., change_count: _Optional[int] = ..., changes_digest: _Optional[bytes] = ..., name: _Optional[str] = ..., digest: _Optional[bytes] = ...) -> None: ...
