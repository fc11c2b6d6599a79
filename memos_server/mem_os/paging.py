"""Pages: their size, their tokens, and how many bytes of a response they fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from google.protobuf.message import Message

from memos_server.errors import invalid_field
from memos_server.mem_os.context import Call, Mos

RESPONSE_BYTES = 3_670_016
"""The most bytes of memories in a response: 3.5 MiB, so that it fits the 4 MiB that gRPC clients accept by default."""


class TokenCodec(Protocol):
    """Encodes cursors as opaque tokens that are bound to principal, method and arguments."""

    def encode(self, principal: str, method: str, arguments: Message, cursor: Mapping[str, Any]) -> str:
        """Returns the token of the next page."""

    def decode(self, token: str, principal: str, method: str, arguments: Message) -> Mapping[str, Any]:
        """Returns the cursor; MipError INVALID_PAGE_TOKEN."""


def page_size(mos: Mos, asked: int, default: int = 50, largest: int = 0) -> int:
    """Returns the size of a page.

    Args:
        mos: The server.
        asked: What the request says; 0 for the default.
        default: The RPC's default.
        largest: The RPC's own bound; 0 for the server's, which it declares.

    Raises:
        MipError: INVALID_FIELD for a negative number.
    """
    if asked < 0:
        raise invalid_field("page_size", "must not be negative")
    return min(asked or default, largest or mos.settings.limits.max_page_size)


def fitting(messages: Sequence[Message]) -> int:
    """Returns how many of the messages, from the first on, fit a response; at least one when there is any."""
    filled = 0
    for number, message in enumerate(messages):
        filled += message.ByteSize() + 8
        if filled > RESPONSE_BYTES and number:
            return number
    return len(messages)


class Pages:
    """Opens and closes pages of one call."""

    def __init__(self, codec: TokenCodec, call: Call, request: Message) -> None:
        """Binds tokens to the call and its arguments."""
        self._codec = codec
        self._call = call
        self._request = request

    def cursor(self, token: str) -> Mapping[str, object]:
        """Returns the cursor of a token; an empty one for the first page."""
        if not token:
            return {}
        return self._codec.decode(token, self._call.principal, self._call.method, self._request)

    def number(self, token: str, key: str, default: int) -> int:
        """Returns one number of the cursor."""
        value = self.cursor(token).get(key, default)
        return value if isinstance(value, int) else default

    def token(self, **cursor: object) -> str:
        """Returns the token of the next page."""
        return self._codec.encode(self._call.principal, self._call.method, self._request, cursor)
