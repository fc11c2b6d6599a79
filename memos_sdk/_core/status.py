"""Decoding of google.rpc.Status, which gRPC carries in the trailer `grpc-status-details-bin`."""

from __future__ import annotations

import dataclasses
from typing import Any

DETAILS_TRAILER = "grpc-status-details-bin"


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
    # Imported by the first error that a server sends; the errors themselves need no protobuf.
    from google.protobuf.message import DecodeError

    try:
        return _parse(raw)
    except (DecodeError, ValueError):
        return Details()


def _parse(raw: bytes) -> Details:
    from memos_sdk._core.pool import message_type

    def unpack(detail: Any) -> Any:
        return message_type(kind).FromString(detail.value)

    reason, metadata, violations, retry_after = "", {}, [], None
    for detail in message_type("google.rpc.Status").FromString(raw).details:
        kind = detail.type_url.rpartition("/")[2]
        if kind == "google.rpc.ErrorInfo":
            info = unpack(detail)
            if info.domain == "mip":
                reason, metadata = info.reason, dict(info.metadata)
        elif kind == "google.rpc.BadRequest":
            violations += [(entry.field, entry.description) for entry in unpack(detail).field_violations]
        elif kind == "google.rpc.RetryInfo":
            info = unpack(detail)
            if info.HasField("retry_delay"):
                retry_after = max(0.0, info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return Details(reason, metadata, tuple(violations), retry_after)
