"""A small server that speaks the protos with grpcio and does what a test tells it, for tests of the SDK and the CLI.

It decides nothing by itself: a test gives each RPC a function. What came in stays in `calls`, bytes and metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from memos_sdk._stubs import METHODS, Kind
from memos_server._pb.mip.v1 import (
    access_service_pb2,
    blob_service_pb2,
    commit_pb2,
    cube_pb2,
    cube_service_pb2,
    graph_service_pb2,
    job_service_pb2,
    memory_service_pb2,
    server_service_pb2,
    session_service_pb2,
)

_MODULES = (
    access_service_pb2,
    blob_service_pb2,
    cube_service_pb2,
    graph_service_pb2,
    job_service_pb2,
    memory_service_pb2,
    server_service_pb2,
    session_service_pb2,
)
CUBE_UID = "0198c0de-0000-7000-8000-000000000001"


class Call(NamedTuple):
    """A call that came in: its RPC's name, the exact bytes, the parsed request (of a stream: all of them)."""

    name: str
    raw: bytes
    request: Any
    metadata: dict[str, str | bytes]


class Refusal(Exception):
    """Ends a call with an error as MIP sends it."""

    def __init__(
        self,
        code: str,
        reason: str = "",
        message: str = "refused",
        *,
        metadata: dict[str, str] | None = None,
        violations: tuple[tuple[str, str], ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
        details: list[Any] = []
        if reason:
            details.append(error_details_pb2.ErrorInfo(domain="mip", reason=reason, metadata=metadata or {}))
        if violations:
            bad = error_details_pb2.BadRequest()
            for field, description in violations:
                bad.field_violations.add(field=field, description=description)
            details.append(bad)
        if retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        self.status = rpc_status.to_status(status)


class FakeMip:
    """A server on a free loopback port."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.calls: list[Call] = []
        self.handlers: dict[str, Callable[[Any], Any]] = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        self._server.add_generic_rpc_handlers((_Generic(self),))
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def on(self, name: str, handler: Callable[[Any], Any]) -> None:
        """Lets a function of the request answer an RPC; it returns or yields, or raises Refusal."""
        assert any(path.endswith(f"/{name}") for path in METHODS), name
        self.handlers[name] = handler

    def named(self, name: str) -> list[Call]:
        """Returns the calls of an RPC."""
        return [call for call in self.calls if call.name == name]

    def stop(self) -> None:
        self._server.stop(None).wait()


class _Generic(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, fake: FakeMip) -> None:
        self._fake = fake

    def service(self, details: Any) -> Any:
        method = METHODS.get(details.method)
        if method is None or method.name not in self._fake.handlers:
            return None
        metadata = {item.key: item.value for item in details.invocation_metadata}
        request_class = next(
            getattr(module, f"{method.name}Request") for module in _MODULES if hasattr(module, f"{method.name}Request")
        )

        def record(raw: bytes) -> Any:
            request = request_class.FromString(raw)
            self._fake.calls.append(Call(method.name, raw, request, metadata))
            return self._fake.handlers[method.name]

        def unary(raw: bytes, context: Any) -> bytes:
            try:
                answer = record(raw)(request_class.FromString(raw))
            except Refusal as refusal:
                context.abort_with_status(refusal.status)
            return answer if isinstance(answer, bytes) else answer.SerializeToString()

        def stream(raw: bytes, context: Any) -> Iterator[bytes]:
            try:
                for answer in record(raw)(request_class.FromString(raw)):
                    yield answer.SerializeToString()
            except Refusal as refusal:
                context.abort_with_status(refusal.status)

        def upload(frames: Iterator[bytes], context: Any) -> bytes:
            parsed: list[Any] = []
            # What came in before a refusal stays visible, as with a real server.
            self._fake.calls.append(Call(method.name, b"", parsed, metadata))
            try:
                return self._fake.handlers[method.name](_collect(frames, request_class, parsed)).SerializeToString()
            except Refusal as refusal:
                context.abort_with_status(refusal.status)

        if method.kind is Kind.SERVER_STREAM:
            return grpc.unary_stream_rpc_method_handler(stream)
        if method.kind is Kind.CLIENT_STREAM:
            return grpc.stream_unary_rpc_method_handler(upload)
        return grpc.unary_unary_rpc_method_handler(unary)


def _collect(frames: Iterator[bytes], request_class: Any, parsed: list[Any]) -> Iterator[Any]:
    for raw in frames:
        parsed.append(request_class.FromString(raw))
        yield parsed[-1]


def digest_of(revision: int) -> bytes:
    """Returns the digest that the fake's commits of a revision have."""
    return hashlib.sha256(b"commit %d" % revision).digest()


def commit(revision: int, cause: str = "", count: int = 1) -> commit_pb2.Commit:
    """Returns a commit that continues the fake's log."""
    return commit_pb2.Commit(
        name=f"cubes/notes/commits/{revision}",
        cube_uid=CUBE_UID,
        revision=revision,
        digest=digest_of(revision),
        parent_digest=digest_of(revision - 1) if revision > 1 else b"",
        principal="principals/local-admin",
        cause=cause,
        change_count=count,
    )


def cube(revision: int = 1, name: str = "cubes/notes") -> cube_pb2.Cube:
    """Returns a cube at a revision."""
    return cube_pb2.Cube(name=name, uid=CUBE_UID, revision=revision, head_digest=digest_of(revision), state=1)


class Notes:
    """Answers of a server with one cube, `cubes/notes`, whose memories are kept in order, as far as tests need it."""

    def __init__(self, fake: FakeMip) -> None:
        self.revision = 1
        self.memories: dict[str, Any] = {}
        fake.on("CreateCube", lambda request: cube_service_pb2.CreateCubeResponse(cube=cube(), commit=commit(1)))
        fake.on("GetCube", lambda request: cube_service_pb2.GetCubeResponse(cube=cube(self.revision)))
        fake.on("ListCubes", lambda request: cube_service_pb2.ListCubesResponse(cubes=[cube(self.revision)]))
        fake.on("AddMemories", self.add)
        fake.on("BulkAddMemories", self.bulk_add)
        fake.on("GetMemory", self.get)
        fake.on("ListMemories", self.list)
        fake.on("SearchMemories", self.search)
        fake.on("UpdateMemory", self.update)

    def add(self, request: Any) -> Any:
        self.revision += 1
        response = memory_service_pb2.AddMemoriesResponse(commit=commit(self.revision, request.cause))
        for memory in request.memories:
            memory.name = memory.name or f"cubes/notes/memories/m{len(self.memories) + 1}"
            memory.revision, memory.state, memory.etag = self.revision, 1, f"etag{self.revision}"
            self.memories[memory.name] = memory
            response.memories.append(memory)
        return response

    def bulk_add(self, frames: Iterator[Any]) -> Any:
        header, *batches, finish = frames
        assert finish.finish
        memories = [memory for frame in batches for memory in frame.batch.memories]
        request = memory_service_pb2.AddMemoriesRequest(cause=header.header.cause, memories=memories)
        commit_made = self.add(request).commit
        return memory_service_pb2.BulkAddMemoriesResponse(commit=commit_made, memory_count=len(memories))

    def get(self, request: Any) -> Any:
        if request.name not in self.memories:
            raise Refusal("NOT_FOUND", "MEMORY_NOT_FOUND", f"there is no memory {request.name}")
        return memory_service_pb2.GetMemoryResponse(memory=self.memories[request.name])

    def list(self, request: Any) -> Any:
        """Pages of two."""
        start = int(request.page_token or 0)
        found = list(self.memories.values())
        token = str(start + 2) if start + 2 < len(found) else ""
        return memory_service_pb2.ListMemoriesResponse(memories=found[start : start + 2], next_page_token=token)

    def search(self, request: Any) -> Any:
        response = memory_service_pb2.SearchMemoriesResponse()
        for memory in self.memories.values():
            if request.query in memory.plaintext.text:
                hit = response.hits.add(memory=memory, score=0.5)
                if request.explain:
                    hit.explanation.channels.add(channel="lexical", rank=1, score=2.5, contribution=0.5)
                    hit.explanation.matched_terms.append(request.query)
        return response

    def update(self, request: Any) -> Any:
        memory = self.memories[request.memory.name]
        if request.memory.etag and request.memory.etag != memory.etag:
            raise Refusal("ABORTED", "ETAG_MISMATCH", "the memory has changed", metadata={"etag": memory.etag})
        self.revision += 1
        if "plaintext.text" in request.update_mask.paths:
            memory.plaintext.text = request.memory.plaintext.text
        memory.revision, memory.etag = self.revision, f"etag{self.revision}"
        return memory_service_pb2.UpdateMemoryResponse(memory=memory, commit=commit(self.revision, request.cause))
