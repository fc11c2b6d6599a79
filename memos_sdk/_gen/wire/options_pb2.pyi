from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Permission(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PERMISSION_UNSPECIFIED: _ClassVar[Permission]
    PERMISSION_OPEN: _ClassVar[Permission]
    PERMISSION_AUTHENTICATED: _ClassVar[Permission]
    PERMISSION_CREATE_CUBE: _ClassVar[Permission]
    PERMISSION_READ: _ClassVar[Permission]
    PERMISSION_WRITE: _ClassVar[Permission]
    PERMISSION_ADMIN: _ClassVar[Permission]
    PERMISSION_SERVER_ADMIN: _ClassVar[Permission]

class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEVEL_UNSPECIFIED: _ClassVar[Level]
    LEVEL_CORE: _ClassVar[Level]
    LEVEL_HISTORY: _ClassVar[Level]
    LEVEL_ACCESS: _ClassVar[Level]
    LEVEL_GRAPH: _ClassVar[Level]

class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FORMAT_UNSPECIFIED: _ClassVar[Format]
    FORMAT_ID: _ClassVar[Format]
    FORMAT_CUBE_NAME: _ClassVar[Format]
    FORMAT_MEMORY_NAME: _ClassVar[Format]
    FORMAT_SESSION_NAME: _ClassVar[Format]
    FORMAT_PRINCIPAL_NAME: _ClassVar[Format]
    FORMAT_GRANT_RESOURCE: _ClassVar[Format]
    FORMAT_UUID: _ClassVar[Format]
    FORMAT_JSON: _ClassVar[Format]
    FORMAT_BLOB_DIGEST: _ClassVar[Format]
    FORMAT_RELATION_TYPE: _ClassVar[Format]
    FORMAT_JOB_NAME: _ClassVar[Format]
    FORMAT_COMMIT_NAME: _ClassVar[Format]
    FORMAT_LABEL_KEY: _ClassVar[Format]
PERMISSION_UNSPECIFIED: Permission
PERMISSION_OPEN: Permission
PERMISSION_AUTHENTICATED: Permission
PERMISSION_CREATE_CUBE: Permission
PERMISSION_READ: Permission
PERMISSION_WRITE: Permission
PERMISSION_ADMIN: Permission
PERMISSION_SERVER_ADMIN: Permission
LEVEL_UNSPECIFIED: Level
LEVEL_CORE: Level
LEVEL_HISTORY: Level
LEVEL_ACCESS: Level
LEVEL_GRAPH: Level
FORMAT_UNSPECIFIED: Format
FORMAT_ID: Format
FORMAT_CUBE_NAME: Format
FORMAT_MEMORY_NAME: Format
FORMAT_SESSION_NAME: Format
FORMAT_PRINCIPAL_NAME: Format
FORMAT_GRANT_RESOURCE: Format
FORMAT_UUID: Format
FORMAT_JSON: Format
FORMAT_BLOB_DIGEST: Format
FORMAT_RELATION_TYPE: Format
FORMAT_JOB_NAME: Format
FORMAT_COMMIT_NAME: Format
FORMAT_LABEL_KEY: Format
AUTH_FIELD_NUMBER: _ClassVar[int]
auth: _descriptor.FieldDescriptor
LEVEL_FIELD_NUMBER: _ClassVar[int]
level: _descriptor.FieldDescriptor
LIMIT_FIELD_NUMBER: _ClassVar[int]
limit: _descriptor.FieldDescriptor
REASON_FIELD_NUMBER: _ClassVar[int]
reason: _descriptor.FieldDescriptor
STATE_RULE_FIELD_NUMBER: _ClassVar[int]
state_rule: _descriptor.FieldDescriptor

class Auth(_message.Message):
    __slots__ = ("permission", "resource_fields")
    PERMISSION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELDS_FIELD_NUMBER: _ClassVar[int]
    permission: Permission
    resource_fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, permission: _Optional[_Union[Permission, str]] = ..., resource_fields: _Optional[_Iterable[str]] = ...) -> None: ...

class Limit(_message.Message):
    __slots__ = ("max_bytes", "max_items", "format", "required", "non_negative")
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    NON_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    max_bytes: int
    max_items: int
    format: Format
    required: bool
    non_negative: bool
    def __init__(self, max_bytes: _Optional[int] = ..., max_items: _Optional[int] = ..., format: _Optional[_Union[Format, str]] = ..., required: bool = ..., non_negative: bool = ...) -> None: ...

class ReasonRule(_message.Message):
    __slots__ = ("code", "remedy", "retryable")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    code: str
    remedy: str
    retryable: bool
    def __init__(self, code: _Optional[str] = ..., remedy: _Optional[str] = ..., retryable: bool = ...) -> None: ...

class StateRule(_message.Message):
    __slots__ = ("transition_to",)
    TRANSITION_TO_FIELD_NUMBER: _ClassVar[int]
    transition_to: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, transition_to: _Optional[_Iterable[str]] = ...) -> None: ...
