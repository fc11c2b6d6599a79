"""From errors to what goes over the wire: a canonical code, a sentence with its remedy, and google.rpc details.

Every error carries ErrorInfo with domain `mip`; what was not raised as a MipError becomes one here, so no caller ever
sees a traceback, and the operator finds it in the log under the incident id that the caller got.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import sqlite3
from typing import Final

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from memos_server.errors import MipError

DOMAIN: Final = "mip"
"""The domain of every ErrorInfo."""

DETAILS_KEY: Final = "grpc-status-details-bin"
"""The trailing metadata key that carries google.rpc.Status."""

MAX_MESSAGE_BYTES: Final = 512
MAX_STATUS_BYTES: Final = 4096
"""Bounds of what travels in trailers: gRPC peers drop header lists beyond 8 KiB, after base64 and percent-encoding."""

_MAX_DETAIL_BYTES: Final = 256

_RETRY_S: Final = 1.0
"""When to try again what is out of reach, seconds, where the error itself does not say."""

_LOG: Final = logging.getLogger(__name__)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FAILING: Final = frozenset({errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE})
"""What the disk of the data folder answers when it fails or turned read-only."""

_SQLITE_FAILING: Final = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
)
_SQLITE_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def status_code(error: MipError) -> grpc.StatusCode:
    """Returns the canonical status code that the error's reason travels with."""
    return grpc.StatusCode[error.code]


def message_of(error: MipError) -> str:
    """Returns what a person reads: what happened, then what to do."""
    message = _cut(error.message.rstrip(), MAX_MESSAGE_BYTES)
    end = "" if message.endswith((".", "!", "?", "…")) else "."
    return f"{message}{end} {error.remedy}"


def _cut(text: str, max_bytes: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= max_bytes:
        return encoded.decode()
    return encoded[: max_bytes - 3].decode(errors="ignore") + "…"


def to_status(error: MipError) -> status_pb2.Status:
    """Returns the google.rpc.Status of an error: ErrorInfo always, BadRequest and RetryInfo where they apply.

    Violations that would make it larger than 4 KiB are left off, the last first.
    """
    metadata = {key: _cut(value, _MAX_DETAIL_BYTES) for key, value in error.metadata.items()}
    metadata["remedy"] = error.remedy
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    wait_s = error.retry_after_s
    if wait_s is None and error.code == "UNAVAILABLE" and error.rule.retryable:
        # Whoever raised it knows no better; its remedy names RetryInfo all the same.
        wait_s = _RETRY_S
    if wait_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(max(0, round(wait_s * 1000)))
        details.append(retry)
    status = status_pb2.Status(code=status_code(error).value[0], message=message_of(error))
    for detail in details:
        status.details.add().Pack(detail)
    if error.violations:
        status.details.add().Pack(_bad_request(error, MAX_STATUS_BYTES - status.ByteSize()))
    return status


def _bad_request(error: MipError, max_bytes: int) -> error_details_pb2.BadRequest:
    bad_request = error_details_pb2.BadRequest()
    for violation in error.violations:
        bad_request.field_violations.add(
            field=_cut(violation.field, _MAX_DETAIL_BYTES),
            description=_cut(violation.description, _MAX_DETAIL_BYTES),
            reason=error.reason,
        )
        if bad_request.ByteSize() > max_bytes - 64:  # the type URL and lengths around it
            del bad_request.field_violations[-1]
            break
    return bad_request


def trailing_metadata(error: MipError) -> tuple[tuple[str, bytes], ...]:
    """Returns the trailing metadata that carries the error's details."""
    return ((DETAILS_KEY, to_status(error).SerializeToString()),)


def from_exception(error: BaseException) -> MipError:
    """Returns the error that the caller sees for anything that a call raised.

    A MipError is returned as it is. What the server did not foresee becomes INTERNAL with a random incident id, logged
    here with its traceback; nothing of it goes to the caller, since it may hold content.

    Args:
        error: What was raised.
    """
    known = _translated(error)
    if known is not None:
        return known
    incident = _logged(error)
    return MipError("INTERNAL", f"The server failed; incident {incident}", metadata={"incident": incident})


def malformed() -> MipError:
    """Returns the error of a request that does not parse."""
    return MipError("MALFORMED_MESSAGE", "The message does not parse")


def _logged(error: BaseException) -> str:
    """Logs an error with its traceback and returns the id of the incident."""
    incident = secrets.token_hex(8)
    _LOG.error("incident %s: %s", incident, type(error).__name__, exc_info=error)
    return incident


def _translated(error: BaseException) -> MipError | None:
    """Returns the reason of a foreseen error; None for one that is a fault of the server."""
    if isinstance(error, MipError):
        return error
    if isinstance(error, TimeoutError) and not error.errno:
        return MipError("DEADLINE_EXCEEDED", "The call's time ran out")
    if isinstance(error, DecodeError | UnicodeDecodeError):
        # A request that does not parse has its reason where it is parsed: this is something that was stored.
        incident = _logged(error)
        message = f"What is stored does not parse; incident {incident}"
        return MipError("DATA_CORRUPT", message, metadata={"incident": incident})
    if isinstance(error, OSError):
        if error.errno in _FAILING:
            return _storage_fails(os.strerror(error.errno or 0))
        return _storage_full(error) if error.errno in _FULL else None
    if isinstance(error, sqlite3.DatabaseError):
        return _from_sqlite(error)
    return None


def _storage_full(error: BaseException) -> MipError:
    _LOG.error("the disk or the quota is full: %s", type(error).__name__)
    return MipError("STORAGE_FULL", "The disk of the data folder is full; the call changed nothing")


def _storage_fails(how: str) -> MipError:
    message = f"The data folder cannot be read or written ({how}); look for errors of the disk"
    _LOG.error("%s", message)
    return MipError("BACKEND_UNAVAILABLE", message, retry_after_s=5.0)


def _from_sqlite(error: sqlite3.DatabaseError) -> MipError | None:
    # The low byte is the primary result code; errors made by Python itself carry none (sqlite.org/rescode.html).
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    text = str(error)
    if code == sqlite3.SQLITE_FULL or "disk is full" in text:
        return _storage_full(error)
    if code in _SQLITE_CORRUPT or "disk image is malformed" in text or "is not a database" in text:
        _LOG.error("the record is damaged", exc_info=error)
        return MipError("DATA_CORRUPT", "The record's file is damaged")
    if code == sqlite3.SQLITE_CANTOPEN:
        _LOG.error("the record cannot be opened")
        return MipError("BACKEND_UNAVAILABLE", "The record cannot be opened", retry_after_s=1.0)
    if code in _SQLITE_FAILING:
        return _storage_fails(getattr(error, "sqlite_errorname", "SQLITE_IOERR"))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return MipError("BACKEND_UNAVAILABLE", "The record is busy", retry_after_s=1.0)
    return None
