"""Mutants that are made for every RPC, and for every reason: an RPC that forgets, an error that says something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from conformance.mutants.faults import Apply, register, use_case
from conformance.mutants.servers import Patches
from memos_server.api import endpoints
from memos_server.api import server as api_server
from memos_server.errors import MipError, reason_rules

_PERMISSIONLESS = ("GetCapabilities", "ListCubes")
"""RPCs for which a forgotten permission is none: anybody, or any principal, may call them."""


def _methods() -> list[Any]:
    return [method for service in api_server.services() for method in service.methods]


def _forgets_permission(path: str) -> Apply:
    def apply(patches: Patches) -> None:
        def authorize(original: Callable[..., None], self: Any, call: Any, request: Message) -> None:
            if self._path != path:
                original(self, call, request)

        original = endpoints.Endpoint._authorize
        patches.set(
            endpoints.Endpoint, "_authorize", lambda self, call, request: authorize(original, self, call, request)
        )

    return apply


def _answers_empty(rpc: str, response: type[Message], *, streams: bool) -> Apply:
    async def empty(original: Callable[..., Any], *args: Any) -> Any:
        return response()

    async def nothing(original: Callable[..., Any], *args: Any) -> Any:
        for frame in ():
            yield frame

    return lambda patches: use_case(patches, rpc, nothing if streams else empty)


def _another_reason(reason: str) -> str:
    """Returns another reason with the same status code, or INTERNAL where there is none."""
    code = reason_rules()[reason].code
    return next((name for name, rule in reason_rules().items() if rule.code == code and name != reason), "INTERNAL")


def _says_another_reason(reason: str) -> Apply:
    def apply(patches: Patches) -> None:
        def changed(original: Callable[[BaseException], MipError], error: BaseException) -> MipError:
            known = original(error)
            if known.reason != reason:
                return known
            return MipError(
                _another_reason(reason),
                known.message,
                metadata=known.metadata,
                violations=known.violations,
                retry_after_s=known.retry_after_s,
            )

        patches.wrap(endpoints, "from_exception", changed)

    return apply


for _method in _methods():
    _name = f"{_method.containing_service.name}.{_method.name}"
    if _method.name not in _PERMISSIONLESS:
        register(
            f"permission-forgotten/{_name}",
            f"{_name} serves every principal, whatever it may do.",
            _forgets_permission(f"/{_method.containing_service.full_name}/{_method.name}"),
        )
    register(
        f"empty-answer/{_name}",
        f"{_name} does nothing and answers with an empty response, or with no frame.",
        _answers_empty(_method.name, GetMessageClass(_method.output_type), streams=_method.server_streaming),
    )

for _reason in reason_rules():
    register(
        f"another-reason/{_reason}",
        f"Errors with the reason {_reason} carry {_another_reason(_reason)} instead.",
        _says_another_reason(_reason),
    )
