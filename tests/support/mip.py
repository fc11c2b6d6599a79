"""A client for tests: every RPC by name, made from the descriptors, so that nothing of the SDK is involved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from memos_server._pb.mip.v1 import access_pb2, common_pb2, cube_pb2, memory_pb2, relation_pb2, session_pb2
from memos_server.api.rpcs import FILES

METHODS: dict[str, MethodDescriptor] = {
    method.name: method for file in FILES for service in file.services_by_name.values() for method in service.methods
}
Memory = memory_pb2.Memory
Plaintext = memory_pb2.Plaintext
Provenance = memory_pb2.Provenance
Vector = memory_pb2.Vector
Relation = relation_pb2.Relation
Cube = cube_pb2.Cube
Session = session_pb2.Session
Grant = access_pb2.Grant
Label = common_pb2.Label


def path_of(method: MethodDescriptor) -> str:
    """Returns the full method path."""
    return f"/{method.containing_service.full_name}/{method.name}"


class RpcError(Exception):
    """An error as the wire carries it."""

    def __init__(self, error: grpc.RpcError) -> None:
        """Decodes the details."""
        self.code: str = error.code().name
        self.message: str = error.details() or ""
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.fields: list[str] = []
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                for detail in status_pb2.Status.FromString(value).details:
                    info = error_details_pb2.ErrorInfo()
                    bad = error_details_pb2.BadRequest()
                    if detail.Unpack(info):
                        assert info.domain == "mip"
                        self.reason, self.metadata = info.reason, dict(info.metadata)
                    elif detail.Unpack(bad):
                        self.fields = [violation.field for violation in bad.field_violations]
        super().__init__(f"{self.code}/{self.reason}: {self.message}")


class Mip:
    """Calls one server as one caller."""

    def __init__(self, address: str, token: str = "") -> None:
        """Connects to `address` with a token."""
        self.address = address
        self.channel = grpc.aio.insecure_channel(address)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    async def close(self) -> None:
        """Closes the connection."""
        await self.channel.close()

    async def call(self, rpc: str, request: Message | None = None, /, **fields: Any) -> Any:
        """Makes a unary call; raises RpcError."""
        method = METHODS[rpc]
        message = request if request is not None else GetMessageClass(method.input_type)(**fields)
        stub = self.channel.unary_unary(
            path_of(method),
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        try:
            return await stub(message, metadata=self.metadata, timeout=60)
        except grpc.RpcError as error:
            raise RpcError(error) from None

    async def raw(self, name: str, body: bytes) -> bytes:
        """Makes a unary call with bytes as they are; raises RpcError."""
        try:
            return await self.channel.unary_unary(path_of(METHODS[name]))(body, metadata=self.metadata, timeout=60)
        except grpc.RpcError as error:
            raise RpcError(error) from None

    async def stream(self, rpc: str, /, **fields: Any) -> AsyncIterator[Any]:
        """Makes a call whose response is a stream; raises RpcError."""
        method = METHODS[rpc]
        stub = self.channel.unary_stream(
            path_of(method),
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        call = stub(GetMessageClass(method.input_type)(**fields), metadata=self.metadata)
        try:
            async for frame in call:
                yield frame
        except grpc.RpcError as error:
            raise RpcError(error) from None
        finally:
            call.cancel()

    async def upload(self, name: str, frames: Iterable[Message]) -> Any:
        """Makes a call whose request is a stream; raises RpcError.

        With a blocking channel in a thread: the asynchronous one loses the server's status when a write meets the end
        of the call (grpc/grpc#36066).
        """
        method = METHODS[name]

        def send() -> Any:
            with grpc.insecure_channel(self.address) as channel:
                stub = channel.stream_unary(
                    path_of(method),
                    request_serializer=lambda m: m.SerializeToString(),
                    response_deserializer=GetMessageClass(method.output_type).FromString,
                )
                return stub(iter(frames), metadata=self.metadata, timeout=60)

        try:
            return await asyncio.to_thread(send)
        except grpc.RpcError as error:
            raise RpcError(error) from None

    def __getattr__(self, name: str) -> Any:
        """Returns the call of an RPC by its name: `await mip.GetCube(name=…)`."""
        if name not in METHODS:
            raise AttributeError(name)
        if METHODS[name].server_streaming:
            return lambda **fields: self.stream(name, **fields)
        return lambda request=None, /, **fields: self.call(name, request, **fields)


def text(words: str, **fields: Any) -> memory_pb2.Memory:
    """Returns a plaintext memory."""
    return Memory(plaintext=Plaintext(text=words), **fields)
