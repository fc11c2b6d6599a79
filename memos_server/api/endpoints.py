"""The one way of every call: authenticate, read, parse, validate, authorize, run the use case, answer or explain.

Requests arrive as bytes, so that a message that does not parse gets a reason like every other error. The order matters:
nothing is read for somebody unknown, nobody learns anything of a request's validity without a token, and nothing is
looked up before names are well-formed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from memos_server._pb.mip.v1 import options_pb2
from memos_server._pb.mip.v1.cube_service_pb2 import WatchCubeResponse
from memos_server.api.accounts import REFUSED, Accounts, RefusedCalls
from memos_server.api.bodies import Turns, body
from memos_server.api.quotas import Quotas
from memos_server.api.resources import Rule, rule_of
from memos_server.api.standing import Standing
from memos_server.api.status import from_exception, malformed, message_of, status_code, trailing_metadata
from memos_server.api.validation import validate
from memos_server.api.wire_limits import wire_check
from memos_server.errors import MipError
from memos_server.graph_dbs.base import PrincipalAccess
from memos_server.mem_os.access import require
from memos_server.mem_os.context import Call, Mos
from memos_server.telemetry.calls import CURRENT

Context = grpc.aio.ServicerContext[bytes, bytes]

T = TypeVar("T")
UseCase = Callable[..., Any]

_INLINE_BYTES = 25_000
"""Up to this size a request is checked on the event loop; larger ones would hold it for longer than a millisecond."""
_ANYONE = PrincipalAccess("", known=False, disabled=False)


class Server(NamedTuple):
    """What endpoints share."""

    mos: Mos
    accounts: Accounts
    refused: RefusedCalls
    quotas: Quotas


class Endpoint:
    """One RPC."""

    def __init__(self, server: Server, readers: Turns, method: MethodDescriptor, use_case: UseCase) -> None:
        """Serves an RPC with a use case; `readers` are the places of those whose requests are read.

        Raises:
            SetupError: The RPC declares no usable permission.
        """
        self._server = server
        self._readers = readers
        self._use_case = use_case
        self._rule: Rule = rule_of(method)
        self._request_class = GetMessageClass(method.input_type)
        self._path = f"/{method.containing_service.full_name}/{method.name}"
        self._max_bytes = server.mos.settings.limits.max_request_bytes
        self._limit_s = server.mos.settings.watch.slow_request_s
        # What has no fields says nothing, and is not read: nobody need be known to ask for the capabilities.
        self._read = bool(method.input_type.fields)
        self._wire_check = wire_check(method.input_type)

    async def _call(self, context: Context) -> Call:
        if self._rule.permission == options_pb2.PERMISSION_OPEN:
            self._server.quotas.stranger(context.peer())
            return Call(self._path, _ANYONE)
        access, credentials, expiry = await self._server.accounts.authenticate(context)
        if (seen := CURRENT.get()) is not None:
            seen.principal = access.principal
        return Call(self._path, access, credentials, expiry)

    def _charge(self, call: Call) -> None:
        if call.access is not _ANYONE:
            self._server.quotas.call(call.principal)

    async def _body(self, call: Call, context: Context) -> bytes:
        if not self._read:
            return b""
        raw = await body(context, self._readers, call.principal, self._limit_s)
        if call.access is not _ANYONE:
            self._server.quotas.received(call.principal, len(raw))
        return raw

    def _checked(self, raw: bytes) -> Message:
        try:
            if self._wire_check is not None and len(raw) > _INLINE_BYTES:
                self._wire_check(raw)
            request = self._request_class.FromString(raw)
        except (DecodeError, UnicodeDecodeError) as error:
            # Only here: later it is not the request that does not parse.
            raise malformed() from error
        validate(request)
        return request

    async def _request(self, raw: bytes, *, inline: bool = False) -> Message:
        """Returns a request, parsed and validated; beside the event loop when it is large, unless it is `inline`."""
        if len(raw) > self._max_bytes:
            raise MipError(
                "REQUEST_TOO_LARGE",
                f"the request has {len(raw)} bytes, at most {self._max_bytes} are accepted",
                metadata={"max_request_bytes": str(self._max_bytes)},
            )
        if inline or len(raw) <= _INLINE_BYTES:
            return self._checked(raw)
        return await asyncio.get_running_loop().run_in_executor(self._server.mos.cpu, self._checked, raw)

    def _authorize(self, call: Call, request: Message) -> None:
        if self._rule.paths:
            require(call.access, self._rule.permission, self._rule.resolve(request))
        elif self._rule.permission != options_pb2.PERMISSION_OPEN:
            require(call.access, self._rule.permission, [""])

    async def unary(self, frames: AsyncIterator[bytes], context: Context) -> bytes:
        """Serves a unary call; it reads the request itself, from the context."""
        call = None
        try:
            call = await self._call(context)
            self._charge(call)
            request = await self._request(await self._body(call, context))
            self._authorize(call, request)
            response: Message = await self._use_case(self._server.mos, call, request)
            return response.SerializeToString()
        except Exception as error:
            await self._fail(context, call, error)

    async def upload(self, frames: AsyncIterator[bytes], context: Context) -> bytes:
        """Serves a call whose request is a stream; the first frame names what it is about. It ends when the caller
        loses its right to it. Frames are read from the context: the iterator that gRPC hands over refers to itself, so
        that an unfinished stream would keep its place on the connection until the collector comes by."""
        call = None
        try:
            seen = self._server.mos.access.generation
            call = await self._call(context)
            self._charge(call)
            with self._server.quotas.stream(call.principal):
                first = await self._frame(context)
                if first is None:
                    raise MipError("INVALID_STREAM", "the stream is empty")
                await self._server.quotas.frame(call.principal, len(first))
                request = await self._request(first)
                if not request.HasField("header"):
                    raise MipError("INVALID_STREAM", "the first frame is not the header")
                self._authorize(call, request)
                standing = self._standing(call, request, seen)
                try:
                    response = await self._use_case(
                        self._server.mos, call, request, self._rest(context, call, standing)
                    )
                finally:
                    standing.close()
            return cast("Message", response).SerializeToString()
        except Exception as error:
            await self._fail(context, call, error)

    async def _rest(self, context: Context, call: Call, standing: Standing) -> AsyncIterator[Message]:
        while (raw := await standing.during(self._frame(context))) is not None:
            await standing.during(self._server.quotas.frame(call.principal, len(raw)))
            # A piece of a blob is one field, whatever its size.
            yield await self._request(raw, inline=self._wire_check is None)

    def _standing(self, call: Call, request: Message, seen: int) -> Standing:
        return Standing(self._server.accounts, self._server.mos.access, self._rule, call, request, seen)

    async def _frame(self, context: Context) -> bytes | None:
        """Returns the next frame of an upload, which may not keep its place for ever without sending one; None at the
        end."""
        idle_s = self._server.mos.settings.watch.idle_upload_s
        try:
            async with asyncio.timeout(idle_s):
                raw: object = await context.read()
        except TimeoutError:
            text = f"no frame came for {idle_s:g} seconds; QueryWrite tells where to go on"
            raise MipError("DEADLINE_EXCEEDED", text) from None
        if not isinstance(raw, bytes):
            return None
        if (seen := CURRENT.get()) is not None:
            seen.request_bytes += len(raw)
        return raw

    async def stream(self, frames: AsyncIterator[bytes], context: Context) -> None:
        """Serves a call whose response is a stream; it reads the request itself, from the context. It ends when the
        caller loses its right to it."""
        call = None
        try:
            seen = self._server.mos.access.generation
            call = await self._call(context)
            self._charge(call)
            request = await self._request(await self._body(call, context))
            self._authorize(call, request)
            with self._server.quotas.stream(call.principal):
                await self._send(context, call, request, seen)
        except Exception as error:
            await self._fail(context, call, error)

    async def _send(self, context: Context, call: Call, request: Message, seen: int) -> None:
        mos = self._server.mos
        frames: AsyncIterator[Message] = self._use_case(mos, call, request)
        standing = self._standing(call, request, seen)
        last_revision = max(getattr(request, "start_revision", 0) - 1, 0)
        try:
            while True:
                frame = await standing.during(_following(frames))
                if frame is None:
                    return
                if isinstance(frame, WatchCubeResponse) and frame.WhichOneof("frame") is None:
                    await context.send_initial_metadata(())
                    continue
                try:
                    async with asyncio.timeout(mos.settings.watch.slow_reader_s):
                        await self._write(context, frame)
                except TimeoutError:
                    raise MipError(
                        "WATCH_TOO_SLOW",
                        "the client did not take a frame in time",
                        metadata={"last_revision": str(last_revision)},
                    ) from None
                if isinstance(frame, WatchCubeResponse) and frame.HasField("end"):
                    last_revision = frame.end.revision
        finally:
            standing.close()
            await frames.aclose()  # type: ignore[attr-defined]

    async def _write(self, context: Context, frame: Message) -> None:
        data = frame.SerializeToString()
        await context.write(data)
        if (seen := CURRENT.get()) is not None:
            seen.response_bytes += len(data)

    async def _fail(self, context: Context, call: Call | None, error: Exception) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        known = from_exception(error)
        if (seen := CURRENT.get()) is not None:
            seen.failed(known.code, known.reason, known.metadata)
        if known.reason in REFUSED:
            await self._server.refused.count(call.principal if call else "", self._path, known.reason)
        await context.abort(status_code(known), message_of(known), trailing_metadata(known))


async def _following(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)
