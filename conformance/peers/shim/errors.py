"""Errors as MIP sends them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Never

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from conformance.peers.shim import contract


class Refusal(Exception):
    """A call that is refused.

    Attributes:
        reason: A reason of errors.proto, without its prefix.
        message: For people.
        field: The path of the request's field that is wrong; empty when none is.
        metadata: What ErrorInfo says besides.
    """

    def __init__(self, reason: str, message: str, field: str = "", metadata: Mapping[str, str] | None = None) -> None:
        """Keeps what is to be told."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.metadata = dict(metadata or {})


def lacking(what: str, field: str = "") -> Refusal:
    """Returns the refusal of what the library behind the shim has nothing for."""
    return Refusal("UNIMPLEMENTED", what, field)


def abort(context: grpc.ServicerContext, refusal: Refusal) -> Never:
    """Ends a call with a refusal: status code, ErrorInfo, and BadRequest where a field is wrong."""
    code = contract.reasons()[refusal.reason].code
    details = [error_details_pb2.ErrorInfo(reason=refusal.reason, domain="mip", metadata=refusal.metadata)]
    if refusal.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=refusal.field, description=refusal.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=refusal.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(getattr(grpc.StatusCode, code), refusal.message)
    raise AssertionError("abort returned")
