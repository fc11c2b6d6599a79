"""Decoding of google.rpc.Status, which gRPC carries in the trailer `grpc-status-details-bin`.

Only the messages that MIP sends are described here (google/rpc/status.proto, google/rpc/error_details.proto), so that
the SDK needs no package with all of Google's common protos.
"""

# ruff: noqa: RUF009 - betterproto2.field is what dataclasses.field is: a marker that the decorator replaces.
from __future__ import annotations

import dataclasses
import datetime
import struct

import betterproto2

from memos_sdk._gen.google.protobuf import Duration

DETAILS_TRAILER = "grpc-status-details-bin"

# What betterproto2 raises on bytes that are not the message; it has no error class of its own.
PARSE_ERRORS = (EOFError, ValueError, OverflowError, KeyError, AttributeError, TypeError, struct.error)


@dataclasses.dataclass(eq=False, repr=False)
class AnyMessage(betterproto2.Message):
    """google.protobuf.Any."""

    type_url: str = betterproto2.field(1, betterproto2.TYPE_STRING)
    value: bytes = betterproto2.field(2, betterproto2.TYPE_BYTES)


@dataclasses.dataclass(eq=False, repr=False)
class Status(betterproto2.Message):
    """google.rpc.Status."""

    code: int = betterproto2.field(1, betterproto2.TYPE_INT32)
    message: str = betterproto2.field(2, betterproto2.TYPE_STRING)
    details: list[AnyMessage] = betterproto2.field(3, betterproto2.TYPE_MESSAGE, repeated=True)


@dataclasses.dataclass(eq=False, repr=False)
class MetadataEntry(betterproto2.Message):
    """An entry of ErrorInfo.metadata; a map travels as repeated entries."""

    key: str = betterproto2.field(1, betterproto2.TYPE_STRING)
    value: str = betterproto2.field(2, betterproto2.TYPE_STRING)


@dataclasses.dataclass(eq=False, repr=False)
class ErrorInfo(betterproto2.Message):
    """google.rpc.ErrorInfo."""

    reason: str = betterproto2.field(1, betterproto2.TYPE_STRING)
    domain: str = betterproto2.field(2, betterproto2.TYPE_STRING)
    metadata: list[MetadataEntry] = betterproto2.field(3, betterproto2.TYPE_MESSAGE, repeated=True)


@dataclasses.dataclass(eq=False, repr=False)
class FieldViolationMessage(betterproto2.Message):
    """google.rpc.BadRequest.FieldViolation."""

    field: str = betterproto2.field(1, betterproto2.TYPE_STRING)
    description: str = betterproto2.field(2, betterproto2.TYPE_STRING)


@dataclasses.dataclass(eq=False, repr=False)
class BadRequest(betterproto2.Message):
    """google.rpc.BadRequest."""

    field_violations: list[FieldViolationMessage] = betterproto2.field(1, betterproto2.TYPE_MESSAGE, repeated=True)


@dataclasses.dataclass(eq=False, repr=False)
class RetryInfo(betterproto2.Message):
    """google.rpc.RetryInfo."""

    retry_delay: datetime.timedelta | None = betterproto2.field(
        1, betterproto2.TYPE_MESSAGE, unwrap=lambda: Duration, optional=True
    )


@dataclasses.dataclass(frozen=True)
class Details:
    """What a status says beyond its code and message.

    Attributes:
        reason: ErrorInfo.reason; empty when the status carries none of domain `mip`.
        metadata: ErrorInfo.metadata.
        violations: Pairs (field, description) of BadRequest.
        retry_after: Seconds of RetryInfo; None when absent.
    """

    reason: str = ""
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()
    retry_after: float | None = None


def parse_details(raw: bytes) -> Details:
    """Decodes the trailer; bytes that do not parse, from a proxy for instance, count as no details."""
    try:
        return _parse(raw)
    except PARSE_ERRORS:
        return Details()


def _parse(raw: bytes) -> Details:
    reason, metadata, violations, retry_after = "", {}, [], None
    for detail in Status.parse(raw).details:
        kind = detail.type_url.rpartition("/")[2]
        if kind == "google.rpc.ErrorInfo":
            info = ErrorInfo.parse(detail.value)
            if info.domain == "mip":
                reason = str(info.reason)
                metadata = {str(entry.key): str(entry.value) for entry in info.metadata}
        elif kind == "google.rpc.BadRequest":
            bad = BadRequest.parse(detail.value)
            violations += [(str(violation.field), str(violation.description)) for violation in bad.field_violations]
        elif kind == "google.rpc.RetryInfo":
            delay = RetryInfo.parse(detail.value).retry_delay
            retry_after = None if delay is None else max(0.0, delay.total_seconds())
    return Details(reason, metadata, tuple(violations), retry_after)
