"""The one error type of the server, built from the table of reasons that errors.proto declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from google.protobuf.message import Message

from memos_server._pb.mip.v1 import errors_pb2, options_pb2


class ReasonRule(NamedTuple):
    """What errors.proto declares of a reason: its canonical status code, the remedy and whether a retry may help."""

    code: str
    remedy: str
    retryable: bool


def option(options: Message, extension: Any) -> Any:
    """Returns the value of a custom option; its default where it is not set.

    The stubs of protobuf do not know the type of a generated extension, hence Any.
    """
    return options.Extensions[extension]


@cache
def reason_rules() -> Mapping[str, ReasonRule]:
    """Returns the table reason -> rule, read once from the descriptor of ErrorReason."""
    rules = {}
    for value in errors_pb2.ErrorReason.DESCRIPTOR.values:
        if value.number:
            rule: options_pb2.ReasonRule = option(value.GetOptions(), options_pb2.reason)
            rules[value.name.removeprefix("ERROR_REASON_")] = ReasonRule(rule.code, rule.remedy, rule.retryable)
    return rules


class FieldViolation(NamedTuple):
    """A request field that is wrong, and how; becomes a google.rpc.BadRequest violation."""

    field: str
    description: str


class MipError(Exception):
    """An error that a caller sees: canonical code, reason, message and remedy.

    Attributes:
        reason: The name of an ErrorReason without its prefix, such as `ETAG_MISMATCH`.
        message: What happened, one sentence, without content or secrets.
        metadata: Machine-readable facts (ErrorInfo.metadata), such as the current etag.
        violations: The request fields at fault.
        retry_after_s: Seconds after which a retry makes sense (RetryInfo); None sends none.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        """Builds the error; an unknown reason is a KeyError, so a typo fails its test."""
        self.rule = reason_rules()[reason]
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s
        super().__init__(f"{reason}: {message}")

    @property
    def code(self) -> str:
        """The canonical status code, such as `ABORTED`."""
        return self.rule.code

    @property
    def remedy(self) -> str:
        """What the caller can do."""
        return self.rule.remedy


def invalid_field(field: str, description: str, reason: str = "INVALID_FIELD") -> MipError:
    """Returns the INVALID_ARGUMENT error that names one request field."""
    return MipError(reason, f"{field}: {description}", violations=[FieldViolation(field, description)])


def too_many(limit: int, count: int) -> str:
    """Returns what is wrong with a list of more elements than its limit; the reason is TOO_MANY_ITEMS."""
    return f"holds {count} elements; at most {limit} are permitted"
