"""The errors that the SDK raises.

Every error is a `MipError` and says what happened (`message`), why in a machine-readable word (`reason`), and what can
be done about it (`remedy`)::

    MipError
    ├── UsageError           (ValueError)        the call is wrong before anything is sent
    ├── InvalidArgument                          the server refuses a field; see `violations`
    ├── NotFound                                 a cube, memory, revision, session … does not exist
    ├── AlreadyExists                            the id is or was in use
    ├── PermissionDenied                         a grant is missing, or the resource does not exist
    ├── Unauthenticated                          no token, or one that does not hold
    ├── FailedPrecondition                       the state of a resource does not permit the call
    ├── Aborted                                  somebody else changed the resource first (etag, revision)
    ├── OutOfRange
    ├── ResourceExhausted                        a quota or a size limit
    ├── Unavailable                              the server cannot answer now
    │   └── ConnectError     (ConnectionError)   nothing answers at the address
    ├── DeadlineExceeded     (TimeoutError)      the time ran out
    ├── Cancelled                                the call was cancelled
    ├── Unimplemented                            the server does not offer this
    ├── DataLoss                                 stored data fails its digest
    │   └── HeadMismatch                         the log is not the one that this client has seen
    ├── Internal                                 a fault of the server
    └── Unknown                                  anything else

The classes follow the canonical gRPC status codes; `reason` is finer. The reasons and their remedies are those that
errors.proto declares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from memos_sdk._core.status import Details, parse_details
from memos_sdk._gen.reasons import REASONS

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "ConnectError",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FieldViolation",
    "HeadMismatch",
    "Internal",
    "InvalidArgument",
    "MipError",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "UsageError",
]


class FieldViolation(NamedTuple):
    """A request field that is wrong, and how."""

    field: str
    description: str


class MipError(Exception):
    """The root of all errors of the SDK.

    Attributes:
        code: The canonical status code, such as `NOT_FOUND`.
        reason: The cause as errors.proto names it, such as `CUBE_NOT_FOUND`; empty when the server sent none.
        message: What happened, one sentence.
        remedy: What can be done about it; may be empty.
        metadata: Machine-readable facts, such as the current etag.
        violations: The request fields at fault.
        retry_after: Seconds after which a retry makes sense; None when the server did not say.
        method: The path of the RPC; empty when none was made.
    """

    code = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        remedy: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        method: str = "",
    ) -> None:
        """Builds the error; without a remedy, the one that errors.proto declares for the reason is taken."""
        rule = REASONS.get(reason)
        self.message = message
        self.reason = reason
        self.remedy = remedy or (rule.remedy if rule else "")
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.method = method
        super().__init__(message)
        if self.remedy:
            # A traceback ends with it, where nobody catches the error.
            self.add_note(f"remedy: {self.remedy}")

    def __str__(self) -> str:
        """Reason and message in one line."""
        return f"{self.reason or self.code}: {self.message}"

    @property
    def retryable(self) -> bool:
        """True when the same call may succeed later without a change."""
        rule = REASONS.get(self.reason)
        return rule.retryable if rule else self.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")

    def diagnostics(self) -> str:
        """Returns everything that is known about the error, for people, over several lines."""
        lines = [str(self)]
        if self.method:
            lines.append(f"  call: {self.method} ({self.code})")
        lines += [f"  field {field}: {description}" for field, description in self.violations]
        lines += [f"  {key}: {value}" for key, value in sorted(self.metadata.items())]
        if self.retry_after is not None:
            lines.append(f"  retry after: {self.retry_after:g} s")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)


class UsageError(MipError, ValueError):
    """The call is wrong before anything is sent."""

    code = "INVALID_ARGUMENT"


class InvalidArgument(MipError):
    """The server refuses a field of the request; `violations` names it."""

    code = "INVALID_ARGUMENT"


class NotFound(MipError):
    """The resource does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(MipError):
    """The id is or was in use."""

    code = "ALREADY_EXISTS"


class PermissionDenied(MipError):
    """A grant is missing, or the resource does not exist; the two answer alike."""

    code = "PERMISSION_DENIED"


class Unauthenticated(MipError):
    """The call carries no token, or one that does not hold."""

    code = "UNAUTHENTICATED"


class FailedPrecondition(MipError):
    """The state of a resource does not permit the call."""

    code = "FAILED_PRECONDITION"


class Aborted(MipError):
    """Somebody else changed the resource first: the etag or the expected revision is stale."""

    code = "ABORTED"


class OutOfRange(MipError):
    """A value is past what exists."""

    code = "OUT_OF_RANGE"


class ResourceExhausted(MipError):
    """A quota or a size limit is reached."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(MipError):
    """The server cannot answer now."""

    code = "UNAVAILABLE"


class ConnectError(Unavailable, ConnectionError):
    """Nothing answers at the address."""


class DeadlineExceeded(MipError, TimeoutError):
    """The time ran out before the answer came. A mutation may have taken effect."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(MipError):
    """The call was cancelled."""

    code = "CANCELLED"


class Unimplemented(MipError):
    """The server does not offer the call or the option."""

    code = "UNIMPLEMENTED"


class DataLoss(MipError):
    """Stored or received data fails its digest."""

    code = "DATA_LOSS"


class HeadMismatch(DataLoss):
    """The cube's log does not continue the one that this client has seen."""


class Internal(MipError):
    """A fault of the server."""

    code = "INTERNAL"


class Unknown(MipError):
    """An error without a known status code."""


_BY_CODE: dict[str, type[MipError]] = {
    cls.code: cls
    for cls in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        Unauthenticated,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Unimplemented,
        DataLoss,
        Internal,
    )
}

# How gRPC words the failure to reach anybody; such a status is made by the client's own library and has no trailer.
_CONNECT_FAILURES = ("failed to connect", "connection refused", "name resolution", "dns resolution", "domain name")
_TLS_FAILURES = ("ssl", "tls", "handshake", "certificate")
_CONNECT_REMEDY = (
    "Start a server with `memos serve`, or name the address with --target, Client(target) or MEMOS_TARGET."
)
_TLS_REMEDY = "Check that a server runs there and speaks TLS, and name its CA with TLS(ca=…), --tls-ca or MEMOS_TLS_CA."
_RESOLVE_REMEDY = "Check the host name of the address."


def error_from_status(
    code: str, message: str, trailer: bytes | None, *, method: str, target: str, tls: bool = False
) -> MipError:
    """Makes the error that a gRPC status stands for.

    Args:
        code: The canonical code's name, such as `NOT_FOUND`.
        message: The status message.
        trailer: The bytes of `grpc-status-details-bin`; None when absent.
        method: The path of the RPC.
        target: The address that was called.
        tls: Whether TLS was spoken.
    """
    details = parse_details(trailer) if trailer else Details()
    lowered = message.lower()
    if code == "UNAVAILABLE" and not details.reason and any(text in lowered for text in _CONNECT_FAILURES):
        return _connect_error(target, message, lowered, method, tls=tls)
    metadata = dict(details.metadata)
    # A server may say the remedy itself, in the message too for clients that show nothing else.
    remedy = metadata.pop("remedy", "")
    if remedy and message.endswith(remedy) and message != remedy:
        message = message.removesuffix(remedy).rstrip()
    return _BY_CODE.get(code, Unknown)(
        message or code,
        reason=details.reason,
        remedy=remedy,
        metadata=metadata,
        violations=[FieldViolation(*violation) for violation in details.violations],
        retry_after=details.retry_after,
        method=method,
    )


def _connect_error(target: str, message: str, lowered: str, method: str, *, tls: bool) -> ConnectError:
    if "resolution" in lowered or "domain name" in lowered:
        remedy = _RESOLVE_REMEDY
    elif tls or any(word in lowered for word in _TLS_FAILURES):
        # Of several addresses gRPC names the failure of one: a refused ::1 may hide a failed handshake on 127.0.0.1.
        remedy = _TLS_REMEDY
    else:
        remedy = _CONNECT_REMEDY
    error = ConnectError(f"no server answers at {target}", reason="CONNECT_FAILED", remedy=remedy, method=method)
    error.metadata["detail"] = message
    return error
