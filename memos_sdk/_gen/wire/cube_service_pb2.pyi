import datetime

from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from memos_sdk._gen.wire import commit_pb2 as _commit_pb2
from memos_sdk._gen.wire import common_pb2 as _common_pb2
from memos_sdk._gen.wire import cube_pb2 as _cube_pb2
from memos_sdk._gen.wire import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateCubeRequest(_message.Message):
    __slots__ = ("cube_id", "cube", "request_id")
    CUBE_ID_FIELD_NUMBER: _ClassVar[int]
    CUBE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    cube_id: str
    cube: _cube_pb2.Cube
    request_id: str
    def __init__(self, cube_id: _Optional[str] = ..., cube: _Optional[_Union[_cube_pb2.Cube, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateCubeResponse(_message.Message):
    __slots__ = ("cube", "commit")
    CUBE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    cube: _cube_pb2.Cube
    commit: _commit_pb2.Commit
    def __init__(self, cube: _Optional[_Union[_cube_pb2.Cube, _Mapping]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ...) -> None: ...

class GetCubeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetCubeResponse(_message.Message):
    __slots__ = ("cube",)
    CUBE_FIELD_NUMBER: _ClassVar[int]
    cube: _cube_pb2.Cube
    def __init__(self, cube: _Optional[_Union[_cube_pb2.Cube, _Mapping]] = ...) -> None: ...

class ListCubesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "show_deleted")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SHOW_DELETED_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    show_deleted: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., show_deleted: bool = ...) -> None: ...

class ListCubesResponse(_message.Message):
    __slots__ = ("cubes", "next_page_token")
    CUBES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    cubes: _containers.RepeatedCompositeFieldContainer[_cube_pb2.Cube]
    next_page_token: str
    def __init__(self, cubes: _Optional[_Iterable[_Union[_cube_pb2.Cube, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateCubeRequest(_message.Message):
    __slots__ = ("cube", "update_mask", "request_id")
    CUBE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    cube: _cube_pb2.Cube
    update_mask: _field_mask_pb2.FieldMask
    request_id: str
    def __init__(self, cube: _Optional[_Union[_cube_pb2.Cube, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class UpdateCubeResponse(_message.Message):
    __slots__ = ("cube", "commit")
    CUBE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    cube: _cube_pb2.Cube
    commit: _commit_pb2.Commit
    def __init__(self, cube: _Optional[_Union[_cube_pb2.Cube, _Mapping]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ...) -> None: ...

class DeleteCubeRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id", "expected_revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    expected_revision: int
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class DeleteCubeResponse(_message.Message):
    __slots__ = ("cube", "commit")
    CUBE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    cube: _cube_pb2.Cube
    commit: _commit_pb2.Commit
    def __init__(self, cube: _Optional[_Union[_cube_pb2.Cube, _Mapping]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ...) -> None: ...

class UndeleteCubeRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class UndeleteCubeResponse(_message.Message):
    __slots__ = ("cube", "commit")
    CUBE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    cube: _cube_pb2.Cube
    commit: _commit_pb2.Commit
    def __init__(self, cube: _Optional[_Union[_cube_pb2.Cube, _Mapping]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ...) -> None: ...

class PurgeCubeRequest(_message.Message):
    __slots__ = ("name", "reason", "request_id", "expected_revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    request_id: str
    expected_revision: int
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class PurgeCubeResponse(_message.Message):
    __slots__ = ("cube", "commit", "derived", "compaction_job")
    CUBE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    DERIVED_FIELD_NUMBER: _ClassVar[int]
    COMPACTION_JOB_FIELD_NUMBER: _ClassVar[int]
    cube: _cube_pb2.Cube
    commit: _commit_pb2.Commit
    derived: _containers.RepeatedScalarFieldContainer[str]
    compaction_job: str
    def __init__(self, cube: _Optional[_Union[_cube_pb2.Cube, _Mapping]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., derived: _Optional[_Iterable[str]] = ..., compaction_job: _Optional[str] = ...) -> None: ...

class ForkCubeRequest(_message.Message):
    __slots__ = ("name", "cube_id", "revision", "display_name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CUBE_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    cube_id: str
    revision: int
    display_name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., cube_id: _Optional[str] = ..., revision: _Optional[int] = ..., display_name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ForkCubeResponse(_message.Message):
    __slots__ = ("cube", "commit", "index_pending")
    CUBE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    INDEX_PENDING_FIELD_NUMBER: _ClassVar[int]
    cube: _cube_pb2.Cube
    commit: _commit_pb2.Commit
    index_pending: bool
    def __init__(self, cube: _Optional[_Union[_cube_pb2.Cube, _Mapping]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., index_pending: bool = ...) -> None: ...

class RollbackCubeRequest(_message.Message):
    __slots__ = ("name", "to_revision", "expected_revision", "request_id", "cause")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    name: str
    to_revision: int
    expected_revision: int
    request_id: str
    cause: str
    def __init__(self, name: _Optional[str] = ..., to_revision: _Optional[int] = ..., expected_revision: _Optional[int] = ..., request_id: _Optional[str] = ..., cause: _Optional[str] = ...) -> None: ...

class SkippedPurge(_message.Message):
    __slots__ = ("name", "purge_revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PURGE_REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    purge_revision: int
    def __init__(self, name: _Optional[str] = ..., purge_revision: _Optional[int] = ...) -> None: ...

class RollbackCubeResponse(_message.Message):
    __slots__ = ("cube", "commit", "skipped_purges", "index_pending")
    CUBE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_PURGES_FIELD_NUMBER: _ClassVar[int]
    INDEX_PENDING_FIELD_NUMBER: _ClassVar[int]
    cube: _cube_pb2.Cube
    commit: _commit_pb2.Commit
    skipped_purges: _containers.RepeatedCompositeFieldContainer[SkippedPurge]
    index_pending: bool
    def __init__(self, cube: _Optional[_Union[_cube_pb2.Cube, _Mapping]] = ..., commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., skipped_purges: _Optional[_Iterable[_Union[SkippedPurge, _Mapping]]] = ..., index_pending: bool = ...) -> None: ...

class ListCommitsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCommitsResponse(_message.Message):
    __slots__ = ("commits", "next_page_token")
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    commits: _containers.RepeatedCompositeFieldContainer[_commit_pb2.Commit]
    next_page_token: str
    def __init__(self, commits: _Optional[_Iterable[_Union[_commit_pb2.Commit, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetCommitRequest(_message.Message):
    __slots__ = ("name", "view")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    name: str
    view: _common_pb2.View
    def __init__(self, name: _Optional[str] = ..., view: _Optional[_Union[_common_pb2.View, str]] = ...) -> None: ...

class GetCommitResponse(_message.Message):
    __slots__ = ("commit", "sealed_header")
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    SEALED_HEADER_FIELD_NUMBER: _ClassVar[int]
    commit: _commit_pb2.Commit
    sealed_header: bytes
    def __init__(self, commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., sealed_header: _Optional[bytes] = ...) -> None: ...

class ListCommitChangesRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "view")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    view: _common_pb2.View
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., view: _Optional[_Union[_common_pb2.View, str]] = ...) -> None: ...

class ListCommitChangesResponse(_message.Message):
    __slots__ = ("changes", "next_page_token", "sealed_changes")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEALED_CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[_commit_pb2.Change]
    next_page_token: str
    sealed_changes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, changes: _Optional[_Iterable[_Union[_commit_pb2.Change, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., sealed_changes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class WatchCubeRequest(_message.Message):
    __slots__ = ("name", "start_revision", "view")
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_REVISION_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    name: str
    start_revision: int
    view: _common_pb2.View
    def __init__(self, name: _Optional[str] = ..., start_revision: _Optional[int] = ..., view: _Optional[_Union[_common_pb2.View, str]] = ...) -> None: ...

class WatchCubeResponse(_message.Message):
    __slots__ = ("commit", "changes", "end", "heartbeat", "sealed_header")
    class Changes(_message.Message):
        __slots__ = ("changes", "sealed_changes")
        CHANGES_FIELD_NUMBER: _ClassVar[int]
        SEALED_CHANGES_FIELD_NUMBER: _ClassVar[int]
        changes: _containers.RepeatedCompositeFieldContainer[_commit_pb2.Change]
        sealed_changes: _containers.RepeatedScalarFieldContainer[bytes]
        def __init__(self, changes: _Optional[_Iterable[_Union[_commit_pb2.Change, _Mapping]]] = ..., sealed_changes: _Optional[_Iterable[bytes]] = ...) -> None: ...
    class End(_message.Message):
        __slots__ = ("revision",)
        REVISION_FIELD_NUMBER: _ClassVar[int]
        revision: int
        def __init__(self, revision: _Optional[int] = ...) -> None: ...
    class Heartbeat(_message.Message):
        __slots__ = ("revision", "time")
        REVISION_FIELD_NUMBER: _ClassVar[int]
        TIME_FIELD_NUMBER: _ClassVar[int]
        revision: int
        time: _timestamp_pb2.Timestamp
        def __init__(self, revision: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    SEALED_HEADER_FIELD_NUMBER: _ClassVar[int]
    commit: _commit_pb2.Commit
    changes: WatchCubeResponse.Changes
    end: WatchCubeResponse.End
    heartbeat: WatchCubeResponse.Heartbeat
    sealed_header: bytes
    def __init__(self, commit: _Optional[_Union[_commit_pb2.Commit, _Mapping]] = ..., changes: _Optional[_Union[WatchCubeResponse.Changes, _Mapping]] = ..., end: _Optional[_Union[WatchCubeResponse.End, _Mapping]] = ..., heartbeat: _Optional[_Union[WatchCubeResponse.Heartbeat, _Mapping]] = ..., sealed_header: _Optional[bytes] = ...) -> None: ...

class VerifyCubeRequest(_message.Message):
    __slots__ = ("name", "expected_revision", "expected_head_digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_HEAD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    expected_revision: int
    expected_head_digest: bytes
    def __init__(self, name: _Optional[str] = ..., expected_revision: _Optional[int] = ..., expected_head_digest: _Optional[bytes] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("kind", "resource", "revision", "message")
    KIND_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    resource: str
    revision: int
    message: str
    def __init__(self, kind: _Optional[str] = ..., resource: _Optional[str] = ..., revision: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class VerifyCubeResponse(_message.Message):
    __slots__ = ("valid", "head_revision", "head_digest", "findings", "commits_checked", "changes_checked", "indexed_revision")
    VALID_FIELD_NUMBER: _ClassVar[int]
    HEAD_REVISION_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    COMMITS_CHECKED_FIELD_NUMBER: _ClassVar[int]
    CHANGES_CHECKED_FIELD_NUMBER: _ClassVar[int]
    INDEXED_REVISION_FIELD_NUMBER: _ClassVar[int]
    valid: bool
    head_revision: int
    head_digest: bytes
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    commits_checked: int
    changes_checked: int
    indexed_revision: int
    def __init__(self, valid: bool = ..., head_revision: _Optional[int] = ..., head_digest: _Optional[bytes] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., commits_checked: _Optional[int] = ..., changes_checked: _Optional[int] = ..., indexed_revision: _Optional[int] = ...) -> None: ...
