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

class Session(_message.Message):
    __slots__ = ("display_name", "participants", "labels", "name", "uid", "owner", "create_time", "end_time", "state", "revision")
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    display_name: str
    participants: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedCompositeFieldContainer[_common_pb2.Label]
    name: str
    uid: str
    owner: str
    create_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    state: _memory_pb2.MemoryState
    revision: int
    def __init__(self, display_name: _Optional[str] = ..., participants: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[_Union[_common_pb2.Label, _Mapping]]] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., owner: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[_memory_pb2.MemoryState, str]] = ..., revision: _Optional[int] = ...) -> None: ...

class SessionContent(_message.Message):
    __slots__ = ("display_name", "participants", "labels")
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    display_name: str
    participants: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedCompositeFieldContainer[_common_pb2.Label]
    def __init__(self, display_name: _Optional[str] = ..., participants: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[_Union[_common_pb2.Label, _Mapping]]] = ...) -> None: ...
