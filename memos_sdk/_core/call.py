"""What happens around a call without waiting: request ids, exact bytes, parsing, heads."""

from __future__ import annotations

import struct
import uuid
from typing import Any, TypeVar

import betterproto2

from memos_sdk._core.heads import HeadStore
from memos_sdk._core.status import PARSE_ERRORS
from memos_sdk._gen.mip import v1 as mip
from memos_sdk._stubs import Method
from memos_sdk.errors import DataLoss, UsageError

MessageT = TypeVar("MessageT", bound=betterproto2.Message)


def encode(method: Method[Any, Any], request: betterproto2.Message) -> bytes:
    """Sets the request_id of a mutation that has none, and returns the bytes that every try sends.

    Raises:
        UsageError: A field holds a value that its type cannot carry.
    """
    if method.mutation and not request.request_id:  # type: ignore[attr-defined]
        request.request_id = str(uuid.uuid4())  # type: ignore[attr-defined]
    try:
        return bytes(request)
    except (TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
        raise UsageError(
            f"{method.name} cannot carry its arguments: {error}",
            reason="INVALID_FIELD",
            remedy="Check the types of the arguments; times need a time zone, text must be valid Unicode.",
            method=method.path,
        ) from error


def decode(method: Method[Any, Any], response: type[MessageT], data: bytes) -> MessageT:
    """Parses a response.

    Raises:
        DataLoss: The bytes are not the message.
    """
    try:
        return response.parse(data)
    except PARSE_ERRORS as error:
        raise DataLoss(
            f"the server's answer to {method.name} does not parse: {error}",
            reason="MALFORMED_RESPONSE",
            remedy="Check that the address is that of a MIP server.",
            method=method.path,
        ) from error


def observe(heads: HeadStore, response: betterproto2.Message) -> None:
    """Remembers the head that a mutation's response carries; raises HeadMismatch when it does not fit."""
    commit = getattr(response, "commit", None)
    if isinstance(commit, mip.Commit):
        heads.observe(commit.cube_uid, commit.revision, commit.digest, commit.parent_digest)
