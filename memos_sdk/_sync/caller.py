# Generated from memos_sdk/_async/caller.py by tools/gen_sync_client.py.
# fmt: off
# ruff: noqa: I001, UP028, RUF100
"""The one place where calls are made: tries, deadlines, pages, heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memos_sdk._sync.transport import Transport, sleep
from memos_sdk._core.call import decode, encode, observe
from memos_sdk._core.discovery import Endpoint
from memos_sdk._core.heads import HeadStore
from memos_sdk._core.retry import Attempts, RetryPolicy
from memos_sdk._stubs import Method, RequestT, ResponseT
from memos_sdk._version import __version__
from memos_sdk.errors import MipError

# Calls whose time grows with the size of a cube or a batch get this much unless told otherwise, in seconds.
LONG_TIMEOUT = 600.0
BULK_TIMEOUT = 3600.0


class Caller:
    """Makes calls to one server."""

    def __init__(self, endpoint: Endpoint, timeout: float, retry: RetryPolicy, heads: HeadStore) -> None:
        """Keeps the settings of a client."""
        self.endpoint = endpoint
        self.timeout = timeout
        self.retry = retry
        self.heads = heads
        self._transport = Transport(endpoint, __version__)

    def call(
        self,
        method: Method[..., RequestT, ResponseT],
        request: RequestT,
        timeout: float | None = None,
        *,
        at_least: float = 0.0,
    ) -> ResponseT:
        """Makes a unary call, and repeats it where that is safe.

        Args:
            method: The RPC.
            request: The request; a missing request_id is set.
            timeout: Seconds for all tries together; None means the client's default.
            at_least: The least that a default counts as, for calls that take long.
        """
        payload = encode(method, request)
        attempts = self.attempts(method, timeout, at_least=at_least)
        while True:
            try:
                data = self._transport.unary(method, payload, attempts.next_timeout())
            except MipError as error:
                delay = attempts.delay_after(error)
                if delay is None:
                    raise
                sleep(delay)
                continue
            response = decode(method, method.response, data)
            observe(self.heads, response)
            return response

    def pages(
        self, method: Method[..., Any, Any], request: Any, field: str, timeout: float | None = None
    ) -> Iterator[Any]:
        """Yields the items of all pages; each page is a call of its own."""
        while True:
            response = self.call(method, request, timeout)
            for item in getattr(response, field):
                yield item
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def stream(
        self, method: Method[..., RequestT, ResponseT], request: RequestT, timeout: float | None
    ) -> Iterator[ResponseT]:
        """Yields the responses of one server stream, without repeating it; None sets no time limit."""
        for data in self._transport.server_stream(method, encode(method, request), timeout):
            yield decode(method, method.response, data)

    def upload(self, method: Method[..., RequestT, ResponseT], frames: Any, timeout: float | None) -> ResponseT:
        """Sends frames, already encoded, and returns the response, without repeating it."""
        response = decode(method, method.response, self._transport.client_stream(method, frames, timeout))
        observe(self.heads, response)
        return response

    def attempts(self, method: Method[..., Any, Any], timeout: float | None, *, at_least: float = 0.0) -> Attempts:
        """Starts the clock of a call."""
        seconds = max(self.timeout, at_least) if timeout is None else timeout
        return Attempts(method, self.retry, seconds, has_request_id=True)

    def close(self) -> None:
        """Closes the channel."""
        self._transport.close()
