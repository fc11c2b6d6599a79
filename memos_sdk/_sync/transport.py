"""Bytes over grpc, and the blocking twins of what `_async/transport.py` does in an event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from memos_sdk._core.channel import call_metadata, open_channel, to_error
from memos_sdk._core.discovery import Endpoint
from memos_sdk._core.quiet_grpc import grpc
from memos_sdk._core.uploading import Upload
from memos_sdk._stubs import Method
from memos_sdk.errors import UsageError

T = TypeVar("T")
sleep = time.sleep


def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Runs a function; a blocking client needs no other thread for it."""
    return function(*args)


def threaded(items: Iterator[T]) -> Iterator[T]:
    """Iterates; a blocking client needs no other thread for it."""
    return items


def each(items: Iterable[T]) -> Iterator[T]:
    """Iterates."""
    return iter(items)


class Transport:
    """A channel to one server, opened by the first call. Threads may share it."""

    def __init__(self, endpoint: Endpoint, version: str) -> None:
        """Keeps what the channel will need."""
        self._endpoint = endpoint
        self._version = version
        self._channel: Any = None
        self._closed = False
        self._lock = threading.Lock()

    def unary(self, method: Method[..., Any, Any], payload: bytes, timeout: float | None) -> bytes:
        """Makes a call with one request and one response."""
        call = self._open().unary_unary(method.path)
        try:
            data: bytes = call(payload, timeout=timeout, metadata=call_metadata(self._endpoint))
        except grpc.RpcError as error:
            raise to_error(error, method.path, self._endpoint) from None
        return data

    def server_stream(self, method: Method[..., Any, Any], payload: bytes, timeout: float | None) -> Iterator[bytes]:
        """Makes a call with one request and a stream of responses; leaving the loop cancels the call."""
        call = self._open().unary_stream(method.path)(payload, timeout=timeout, metadata=call_metadata(self._endpoint))
        try:
            yield from call
        except grpc.RpcError as error:
            raise to_error(error, method.path, self._endpoint) from None
        finally:
            call.cancel()

    def client_stream(self, method: Method[..., Any, Any], frames: Iterator[bytes], timeout: float | None) -> bytes:
        """Makes a call with a stream of requests and one response. What `frames` raises cancels the call.

        gRPC reads requests in a thread of its own; `frames` is read here, for it runs code of the caller.
        """
        upload = Upload(self._open(), method.path, timeout, call_metadata(self._endpoint))
        try:
            for frame in frames:
                if not upload.put(frame):
                    break
            upload.put(None)
            return upload.result()
        except grpc.RpcError as error:
            raise to_error(error, method.path, self._endpoint) from None
        finally:
            upload.end()

    def close(self) -> None:
        """Closes the channel; calls in progress end as cancelled."""
        self._closed = True
        if self._channel is not None:
            self._channel.close()

    def _open(self) -> Any:
        with self._lock:
            if self._closed:
                raise UsageError("the client is closed", reason="CLIENT_CLOSED", remedy="Make a new client.")
            if self._channel is None:
                self._channel = open_channel(self._endpoint, self._version)
            return self._channel
