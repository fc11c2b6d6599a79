"""Health and reflection, which answer everybody: how much strangers can make the server hold through them.

The services are gRPC's own; only their handlers are ours. Requests are read as those of the protocol are (bodies.py):
so many at once for one address and for all, for so long, and no larger than such requests are. Streams are counted, and
who does not read what it asked for is not waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from memos_server.api.bodies import Turns, body
from memos_server.api.quotas import address_of
from memos_server.api.status import from_exception, malformed, message_of, status_code, trailing_metadata
from memos_server.errors import MipError

if TYPE_CHECKING:
    Generic = grpc.GenericRpcHandler[Any, Any]
    Method = grpc.RpcMethodHandler[Any, Any]
else:
    # Generic in the stubs only.
    Generic, Method = grpc.GenericRpcHandler, grpc.RpcMethodHandler

Context = grpc.aio.ServicerContext[bytes, bytes]

MAX_BYTES: Final = 4096
"""The largest request: the name of a service, of a file or of a type."""

READ_S: Final = 10.0
"""How long a stranger may take for a request, a further one of the same stream too, or to take an answer, seconds."""

READS: Final = 32
READS_OF_ADDRESS: Final = 4
"""The requests that are read at once."""

DIALOGUES: Final = 32
DIALOGUES_OF_ADDRESS: Final = 8
"""The streams that go on asking: each may be in the middle of a request."""

WATCHES: Final = 1024
WATCHES_OF_ADDRESS: Final = 64
"""The streams that asked once and listen."""

ASKING: Final = 1024
ASKING_OF_ADDRESS: Final = 64
"""The requests that are read or wait for it; more are refused."""


class _Streams:
    """The places of one kind of stream, for an address and for all; nobody waits for one."""

    def __init__(self, of_address: int, of_all: int) -> None:
        self.of_address = Turns("open_streams", of_address, 0)
        self.of_all = Turns("open_streams", of_all, 0)


class OpenServices(Generic):
    """Serves services whose callers need not be known."""

    def __init__(self, *services: tuple[ServiceDescriptor, object], read_s: float) -> None:
        """Serves each service with a servicer of grpc.aio.

        Args:
            services: Services and who answers for them.
            read_s: How long a stranger may take for a request or an answer, seconds.
        """
        self._read_s = read_s
        self._asking = Turns("open_requests", ASKING, 0)
        self._asking_of_address = Turns("open_requests", READS_OF_ADDRESS, ASKING_OF_ADDRESS - READS_OF_ADDRESS)
        self._reads = Turns("open_requests", READS, ASKING - READS)
        self._dialogues = _Streams(DIALOGUES_OF_ADDRESS, DIALOGUES)
        self._watches = _Streams(WATCHES_OF_ADDRESS, WATCHES)
        self._handlers: dict[str, Method] = {}
        for service, servicer in services:
            for method in service.methods:
                path = f"/{service.full_name}/{method.name}"
                self._handlers[path] = self._handler(method, getattr(servicer, method.name))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Method | None:
        """Returns the handler of one of the services' methods."""
        return self._handlers.get(handler_call_details.method)

    def _handler(self, method: MethodDescriptor, answer: Callable[..., Any]) -> Method:
        parse: Callable[[bytes], Message] = GetMessageClass(method.input_type).FromString

        async def request(context: Context, key: str) -> Message:
            text = f"the request did not come whole within {self._read_s:g} seconds"
            async with _within(self._read_s, text), self._asking.turn(""), self._asking_of_address.turn(key):
                return _parsed(await body(context, self._reads, "", self._read_s), parse)

        async def unary(frames: AsyncIterator[bytes], context: Context) -> bytes:
            try:
                response: Message = await answer(await request(context, address_of(context.peer())), context)
                return response.SerializeToString()
            except Exception as error:
                await _fail(context, error)

        async def watch(frames: AsyncIterator[bytes], context: Context) -> None:
            key = address_of(context.peer())
            try:
                async with self._watches.of_address.turn(key), self._watches.of_all.turn(""):
                    await answer(await request(context, key), _Writer(context, self._read_s))
            except Exception as error:
                await _fail(context, error)

        async def dialogue(frames: AsyncIterator[bytes], context: Context) -> None:
            key, writer = address_of(context.peer()), _Writer(context, self._read_s)
            try:
                async with self._dialogues.of_address.turn(key), self._dialogues.of_all.turn(""):
                    async for response in answer(_requests(context, parse, self._read_s), context):
                        await writer.write(response)
            except Exception as error:
                await _fail(context, error)

        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(dialogue)
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(watch)
        return grpc.stream_unary_rpc_method_handler(unary)


class _Writer:
    """What a servicer sees of a call that it streams to."""

    def __init__(self, context: Context, limit_s: float) -> None:
        self._context = context
        self._limit_s = limit_s

    async def write(self, message: Message) -> None:
        """Sends a message, which is taken in time: the health service writes to one watcher after the other."""
        async with _within(self._limit_s, f"the answer was not taken within {self._limit_s:g} seconds"):
            await self._context.write(message.SerializeToString())


@asynccontextmanager
async def _within(limit_s: float, text: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise MipError("DEADLINE_EXCEEDED", text) from None


async def _requests(context: Context, parse: Callable[[bytes], Message], limit_s: float) -> AsyncIterator[Message]:
    while True:
        async with _within(limit_s, f"no request came within {limit_s:g} seconds"):
            raw: object = await context.read()
        if not isinstance(raw, bytes):
            return
        yield _parsed(raw, parse)


def _parsed(raw: bytes, parse: Callable[[bytes], Message]) -> Message:
    if len(raw) > MAX_BYTES:
        raise MipError(
            "REQUEST_TOO_LARGE",
            f"the request has {len(raw)} bytes, at most {MAX_BYTES} are accepted",
            metadata={"max_request_bytes": str(MAX_BYTES)},
        )
    try:
        return parse(raw)
    except (DecodeError, UnicodeDecodeError) as error:
        raise malformed() from error


async def _fail(context: Context, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    known = from_exception(error)
    await context.abort(status_code(known), message_of(known), trailing_metadata(known))
