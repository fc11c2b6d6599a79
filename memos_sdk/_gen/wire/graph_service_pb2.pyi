from memos_sdk._gen.wire import commit_pb2 as _commit_pb2
from memos_sdk._gen.wire import memory_pb2 as _memory_pb2
from memos_sdk._gen.wire import options_pb2 as _options_pb2
from memos_sdk._gen.wire import relation_pb2 as _relation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTION_UNSPECIFIED: _ClassVar[Direction]
    DIRECTION_OUTGOING: _ClassVar[Direction]
    DIRECTION_INCOMING: _ClassVar[Direction]
    DIRECTION_BOTH: _ClassVar[Direction]
DIRECTION_UNSPECIFIED: Direction
DIRECTION_OUTGOING: Direction
DIRECTION_INCOMING: Direction
DIRECTION_BOTH: Direction

class CreateRelationsRequest(_message.Message):
    __slots__ = ("parent", "relations", "request_id", "cause", "expected_revision")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    parent: str
    relations: _containers.RepeatedCompositeFieldContainer[_relation_pb2.Relation]
    request_id: str
    cause: str
    expected_revision: int
    def __init__(self, parent: _Optional[str] = ..., relations: _Optional[_Iterable[_Union[_relation_pb2.Relation, _Mapping]]] = ..., request_id: _Optional[str] = ..., cause: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class CreateRelationsResponse(_message.Message):
    __slots__ = ("relations", "commit", "index_pending")
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    INDEX_PENDING_FIELD_NUMBER: _ClassVar[int]
    relations: _containers.RepeatedCompositeFieldContainer[_relation_pb2.Relation]
    commit: _commit_pb2.Commit
    index_pending: bool
    def __init__(self, relations: _Optional[_Iterable[_Union[_relation_pb2.Relation, _Mapping]]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., index_pending: bool = ...) -> None: ...

class DeleteRelationsRequest(_message.Message):
    __slots__ = ("parent", "relations", "request_id", "cause", "expected_revision")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    parent: str
    relations: _containers.RepeatedCompositeFieldContainer[_relation_pb2.Relation]
    request_id: str
    cause: str
    expected_revision: int
    def __init__(self, parent: _Optional[str] = ..., relations: _Optional[_Iterable[_Union[_relation_pb2.Relation, _Mapping]]] = ..., request_id: _Optional[str] = ..., cause: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class DeleteRelationsResponse(_message.Message):
    __slots__ = ("commit", "index_pending")
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    INDEX_PENDING_FIELD_NUMBER: _ClassVar[int]
    commit: _commit_pb2.Commit
    index_pending: bool
    def __init__(self, commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., index_pending: bool = ...) -> None: ...

class ListRelationsRequest(_message.Message):
    __slots__ = ("parent", "memory", "direction", "types", "page_size", "page_token", "as_of_revision")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    AS_OF_REVISION_FIELD_NUMBER: _ClassVar[int]
    parent: str
    memory: str
    direction: Direction
    types: _containers.RepeatedScalarFieldContainer[str]
    page_size: int
    page_token: str
    as_of_revision: int
    def __init__(self, parent: _Optional[str] = ..., memory: _Optional[str] = ..., direction: _Optional[_Union[Direction, str]] = ..., types: _Optional[_Iterable[str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., as_of_revision: _Optional[int] = ...) -> None: ...

class ListRelationsResponse(_message.Message):
    __slots__ = ("relations", "next_page_token")
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    relations: _containers.RepeatedCompositeFieldContainer[_relation_pb2.Relation]
    next_page_token: str
    def __init__(self, relations: _Optional[_Iterable[_Union[_relation_pb2.Relation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class TraverseRequest(_message.Message):
    __slots__ = ("parent", "starts", "types", "direction", "max_depth", "limit", "as_of_revision")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AS_OF_REVISION_FIELD_NUMBER: _ClassVar[int]
    parent: str
    starts: _containers.RepeatedScalarFieldContainer[str]
    types: _containers.RepeatedScalarFieldContainer[str]
    direction: Direction
    max_depth: int
    limit: int
    as_of_revision: int
    def __init__(self, parent: _Optional[str] = ..., starts: _Optional[_Iterable[str]] = ..., types: _Optional[_Iterable[str]] = ..., direction: _Optional[_Union[Direction, str]] = ..., max_depth: _Optional[int] = ..., limit: _Optional[int] = ..., as_of_revision: _Optional[int] = ...) -> None: ...

class Visit(_message.Message):
    __slots__ = ("memory", "depth", "via")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    memory: _memory_pb2.Memory
    depth: int
    via: _relation_pb2.Relation
    def __init__(self, memory: _Optional[_Union[_memory_pb2.Memory, _Mapping]] = ..., depth: _Optional[int] = ..., via: _Optional[_Union[_relation_pb2.Relation, _Mapping]] = ...) -> None: ...

class TraverseResponse(_message.Message):
    __slots__ = ("visits", "truncated")
    VISITS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    visits: _containers.RepeatedCompositeFieldContainer[Visit]
    truncated: bool
    def __init__(self, visits: _Optional[_Iterable[_Union[Visit, _Mapping]]] = ..., truncated: bool = ...) -> None: ...
