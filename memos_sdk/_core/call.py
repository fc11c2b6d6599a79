"""What happens around a call without waiting: request ids, exact bytes, parsing, heads."""

from __future__ import annotations

import uuid
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from memos_sdk._core.heads import HeadStore
from memos_sdk._stubs import Method
from memos_sdk.errors import DataLoss

MessageT = TypeVar("MessageT", bound=Message)


def encode(method: Method[..., Any, Any], request: Any) -> bytes:
    """Sets the request_id of a mutation that has none, and returns the bytes that every try sends."""
    if method.mutation and not request.request_id:
        request.request_id = str(uuid.uuid4())
    data: bytes = request.SerializeToString()
    return data


def decode(method: Method[..., Any, Any], response: type[MessageT], data: bytes) -> MessageT:
    """Parses a response.

    Raises:
        DataLoss: The bytes are not the message.
    """
    try:
        return response.FromString(data)
    except DecodeError as error:
        raise DataLoss(
            f"the server's answer to {method.name} does not parse: {error}",
            reason="MALFORMED_RESPONSE",
            remedy="Check that the address is that of a MIP server.",
            method=method.path,
        ) from error


def observe(heads: HeadStore, response: Message) -> None:
    """Remembers the head that a mutation's response carries; raises HeadMismatch when it does not fit."""
    commit = getattr(response, "commit", None)
    if commit is not None:
        heads.observe(commit.cube_uid, commit.revision, commit.digest, commit.parent_digest)
