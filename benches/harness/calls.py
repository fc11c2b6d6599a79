"""Calls of a server with plain protobuf messages: no SDK, so that the server is what is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from numpy.typing import NDArray

from memos_server._pb.mip.v1 import (
    cube_pb2,
    cube_service_pb2,
    graph_service_pb2,
    memory_pb2,
    memory_service_pb2,
    server_service_pb2,
)

MODEL = "all-MiniLM-L6-v2"
DIMENSION = 384
BATCH = 1000
"""The most memories that one request or frame brings."""

METHODS = {
    method.name: method
    for file in (cube_service_pb2, graph_service_pb2, memory_service_pb2, server_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
_OPTIONS = [("grpc.max_receive_message_length", -1)]


def path_of(rpc: str) -> str:
    """Returns the full method path of an RPC."""
    method = METHODS[rpc]
    return f"/{method.containing_service.full_name}/{rpc}"


class Caller:
    """A synchronous client with one connection."""

    def __init__(self, address: str, token: str) -> None:
        """Connects."""
        self.channel = grpc.insecure_channel(address, options=_OPTIONS)
        self.metadata = (("authorization", f"Bearer {token}"),)

    def close(self) -> None:
        """Closes the connection."""
        self.channel.close()

    def __call__(self, rpc: str, /, **fields: Any) -> Any:
        """Makes a call; a stream of responses comes back as a list."""
        method = METHODS[rpc]
        request = GetMessageClass(method.input_type)(**fields)
        stub: Any = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call = stub(
            path_of(rpc),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        answer = call(request, metadata=self.metadata, timeout=600)
        return list(answer) if method.server_streaming else answer

    def raw(self, rpc: str, body: bytes) -> bytes:
        """Makes a unary call with bytes."""
        answer: bytes = self.channel.unary_unary(path_of(rpc))(body, metadata=self.metadata, timeout=600)
        return answer

    def make_cube(self, cube_id: str) -> str:
        """Makes a cube whose vectors the callers supply; returns its name."""
        settings = cube_pb2.Cube(embedding_model=MODEL, embedding_dimension=DIMENSION)
        name: str = self("CreateCube", cube_id=cube_id, cube=settings).cube.name
        return name

    def bulk(self, cube: str, memories: Iterable[Sequence[memory_pb2.Memory]]) -> Any:
        """Adds batches as one commit."""
        request = memory_service_pb2.BulkAddMemoriesRequest

        def frames() -> Iterator[Message]:
            yield request(header=request.Header(parent=cube))
            for batch in memories:
                yield request(batch=request.Batch(memories=batch))
            yield request(finish=True)

        call = self.channel.stream_unary(
            path_of("BulkAddMemories"),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=memory_service_pb2.BulkAddMemoriesResponse.FromString,
        )
        return call(frames(), metadata=self.metadata, timeout=900)

    def searchable(self, cube: str) -> None:
        """Returns when a search sees all that the cube holds."""
        while self("SearchMemories", cubes=[cube], query="anything", mode="SEARCH_MODE_LEXICAL", top_k=1).stale:
            pass


def vector_message(vector: NDArray[np.float32]) -> memory_pb2.Vector:
    """Returns a vector as the contract has it."""
    return memory_pb2.Vector(
        model=MODEL, dimension=len(vector), dtype=memory_pb2.DTYPE_FLOAT32, data=vector.astype("<f4").tobytes()
    )


def memories_of(texts: Sequence[str], vectors: NDArray[np.float32] | None = None) -> list[memory_pb2.Memory]:
    """Returns plaintext memories, with their vectors where they are given."""
    made = [memory_pb2.Memory(plaintext=memory_pb2.Plaintext(text=text)) for text in texts]
    if vectors is not None:
        for memory, vector in zip(made, vectors, strict=True):
            memory.vectors.append(vector_message(vector))
    return made


def batches(texts: Sequence[str], vectors: NDArray[np.float32]) -> Iterator[list[memory_pb2.Memory]]:
    """Yields the memories in batches as large as a frame may be."""
    for low in range(0, len(texts), BATCH):
        yield memories_of(texts[low : low + BATCH], vectors[low : low + BATCH])


def add_request(cube: str, memories: Sequence[memory_pb2.Memory]) -> bytes:
    """Returns the bytes of an AddMemories request."""
    return memory_service_pb2.AddMemoriesRequest(parent=cube, memories=memories).SerializeToString()


def filled_cube(
    caller: Caller, cube_id: str, texts: Sequence[str], vectors: NDArray[np.float32]
) -> tuple[str, list[str]]:
    """Makes a cube with memories, searchable; returns its name and some of the memories' names."""
    cube = caller.make_cube(cube_id)
    caller.bulk(cube, batches(texts, vectors))
    caller.searchable(cube)
    listed = caller("ListMemories", parent=cube, page_size=1000)
    return cube, [memory.name for memory in listed.memories]
