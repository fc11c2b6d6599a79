"""Page tokens: a cursor that only this server could have written, for the same caller and the same arguments.

A token is the base64url text of a 12-byte nonce and the cursor's JSON, sealed with AES-256-GCM (NIST SP 800-38D) under
a key that HKDF-SHA256 (RFC 5869) derives. What is authenticated with it are the method, the principal and every request
field but `page_size` and `page_token`, so a token with other arguments does not open. The cursor is encrypted, because
the position of the next item would tell how many hidden ones lie before it.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import Message

from memos_server.errors import FieldViolation, MipError

MAX_TOKEN_CHARACTERS: Final = 4096
"""The longest token, as the contract's `page_token` fields have it."""

MIN_KEY_BYTES: Final = 32
"""The shortest key."""

_NONCE_BYTES: Final = 12
_CONTEXT: Final = b"mip.v1.page-token"
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
        self._cipher = AESGCM(HKDF(SHA256(), length=32, salt=None, info=_CONTEXT).derive(key))

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
        nonce = secrets.token_bytes(_NONCE_BYTES)
        raw = nonce + self._cipher.encrypt(nonce, payload, _bound(principal, method, arguments))
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
        # The last character of base64 may hold bits that no byte takes; one token has one text.
        if len(raw) <= _NONCE_BYTES or base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") != token:
            raise _refused()
        nonce, sealed = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
        try:
            payload = self._cipher.decrypt(nonce, sealed, _bound(principal, method, arguments))
        except InvalidTag as error:
            raise _refused() from error
        cursor: Cursor = json.loads(payload)  # authentic from here on: this server wrote it
        return cursor


def _bound(principal: str, method: str, arguments: Message) -> bytes:
    """Returns what a token is bound to, each part behind its length."""
    bound = type(arguments)()
    bound.CopyFrom(arguments)
    for name in _FREE_FIELDS:
        if name in bound.DESCRIPTOR.fields_by_name:
            bound.ClearField(name)
    parts = (method.encode(), principal.encode(), bound.SerializeToString(deterministic=True))
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _refused() -> MipError:
    description = "was not made by this server for these arguments and this caller"
    return MipError(
        "INVALID_PAGE_TOKEN", f"page_token: {description}", violations=[FieldViolation("page_token", description)]
    )
