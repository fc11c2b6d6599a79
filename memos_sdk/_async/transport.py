"""Bytes over grpc.aio, and the few things that need an event loop. Its twin `_sync/transport.py` is written by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

from memos_sdk._core.channel import call_metadata, open_channel, to_error
from memos_sdk._core.discovery import Endpoint
from memos_sdk._core.quiet_grpc import grpc
from memos_sdk._core.uploading import Upload
from memos_sdk._stubs import Method
from memos_sdk.errors import UsageError

T = TypeVar("T")
sleep = asyncio.sleep


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Runs what would hold up the event loop, such as hashing a file."""
    return await asyncio.to_thread(function, *args)


async def threaded(items: Iterator[T]) -> AsyncIterator[T]:
    """Iterates in a thread, where making an item means reading a file."""
    while (item := await asyncio.to_thread(next, items, None)) is not None:
        yield item


async def each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Iterates over either kind of iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


class AsyncTransport:
    """A channel to one server. It is opened by the first call, within that call's event loop."""

    def __init__(self, endpoint: Endpoint, version: str) -> None:
        """Keeps what the channel will need."""
        self._endpoint = endpoint
        self._version = version
        self._channel: Any = None
        self._uploads: Any = None
        self._closed = False

    async def unary(self, method: Method[..., Any, Any], payload: bytes, timeout: float | None) -> bytes:
        """Makes a call with one request and one response."""
        call = self._open().unary_unary(method.path)
        try:
            data: bytes = await call(payload, timeout=timeout, metadata=call_metadata(self._endpoint))
        except grpc.aio.AioRpcError as error:
            raise to_error(error, method.path, self._endpoint) from None
        return data

    async def server_stream(
        self, method: Method[..., Any, Any], payload: bytes, timeout: float | None
    ) -> AsyncIterator[bytes]:
        """Makes a call with one request and a stream of responses; leaving the loop cancels the call."""
        call = self._open().unary_stream(method.path)(payload, timeout=timeout, metadata=call_metadata(self._endpoint))
        try:
            async for data in call:
                yield data
        except grpc.aio.AioRpcError as error:
            raise to_error(error, method.path, self._endpoint) from None
        finally:
            call.cancel()

    async def client_stream(
        self, method: Method[..., Any, Any], frames: AsyncIterator[bytes], timeout: float | None
    ) -> bytes:
        """Makes a call with a stream of requests and one response. What `frames` raises cancels the call."""
        upload = Upload(self._open_uploads(), method.path, timeout, call_metadata(self._endpoint))
        try:
            async for frame in frames:
                if not await in_thread(upload.put, frame):
                    break
            await in_thread(upload.put, None)
            return await in_thread(upload.result)
        except grpc.RpcError as error:
            raise to_error(error, method.path, self._endpoint) from None
        finally:
            upload.end()

    async def close(self) -> None:
        """Closes the channel; calls in progress end as cancelled."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()
        if self._uploads is not None:
            self._uploads.close()

    def _open(self) -> Any:
        if self._closed:
            raise UsageError("the client is closed", reason="CLIENT_CLOSED", remedy="Make a new client.")
        if self._channel is None:
            self._channel = open_channel(self._endpoint, self._version, grpc.aio)
        return self._channel

    def _open_uploads(self) -> Any:
        if self._uploads is None:
            self._open()
            self._uploads = open_channel(self._endpoint, self._version)
        return self._uploads
