"""Page tokens: a cursor that only this server could have written, for the same caller and the same arguments.

A token is the base64url text of a 32-byte HMAC-SHA256 and the cursor's JSON. The HMAC also covers the method, the
principal and every request field but `page_size` and `page_token`, so a token with other arguments does not verify. The
cursor is signed, not encrypted: it must hold nothing that its reader may not know.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.message import Message

from memos_server.errors import FieldViolation, MipError

MAX_TOKEN_CHARACTERS: Final = 4096
"""The longest token, as the contract's `page_token` fields have it."""

MIN_KEY_BYTES: Final = 32
"""The shortest key."""

_MAC_BYTES: Final = 32
_FREE_FIELDS: Final = ("page_size", "page_token")

Cursor = dict[str, str | int | float | bool | None]
"""Where a listing goes on: JSON scalars by name."""


class PageTokens:
    """Writes and reads page tokens with one key."""

    def __init__(self, key: bytes) -> None:
        """Makes the codec.

        Args:
            key: At least 32 secret bytes; tokens outlive a restart when it does.

        Raises:
            ValueError: The key is too short.
        """
        if len(key) < MIN_KEY_BYTES:
            raise ValueError(f"the key has {len(key)} bytes; at least {MIN_KEY_BYTES} are needed")
        self._key = key

    def encode(self, principal: str, method: str, arguments: Message, cursor: Mapping[str, Any]) -> str:
        """Returns the token of the next page.

        Args:
            principal: The caller's name.
            method: The RPC, such as `/mip.v1.MemoryService/ListMemories`.
            arguments: The request of the page before.
            cursor: Where to go on; JSON scalars.

        Raises:
            ValueError: The cursor does not fit a token.
        """
        payload = json.dumps(dict(cursor), separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
        raw = self._mac(principal, method, arguments, payload) + payload
        token = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise ValueError(f"the token has {len(token)} characters; at most {MAX_TOKEN_CHARACTERS} are permitted")
        return token

    def decode(self, token: str, principal: str, method: str, arguments: Message) -> Cursor:
        """Returns the cursor of a token.

        Args:
            token: The token, not empty.
            principal: The caller's name.
            method: The RPC.
            arguments: The request that carries the token.

        Raises:
            MipError: INVALID_PAGE_TOKEN when this server did not write the token for that caller and those arguments.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _refused()
        try:
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error) as error:
            raise _refused() from error
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(principal, method, arguments, payload)):
            raise _refused()
        cursor: Cursor = json.loads(payload)  # authentic from here on: this server wrote it
        return cursor

    def _mac(self, principal: str, method: str, arguments: Message, payload: bytes) -> bytes:
        bound = type(arguments)()
        bound.CopyFrom(arguments)
        for name in _FREE_FIELDS:
            if name in bound.DESCRIPTOR.fields_by_name:
                bound.ClearField(name)
        mac = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (
            b"mip.v1.page-token",
            method.encode(),
            principal.encode(),
            bound.SerializeToString(deterministic=True),
            payload,
        ):
            mac.update(len(part).to_bytes(8, "big"))
            mac.update(part)
        return mac.digest()


def _refused() -> MipError:
    description = "was not made by this server for these arguments and this caller"
    return MipError(
        "INVALID_PAGE_TOKEN", f"page_token: {description}", violations=[FieldViolation("page_token", description)]
    )
