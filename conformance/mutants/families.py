"""Mutants that are made for every RPC, and for every reason: an RPC that forgets, an error that says something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from conformance.mutants.faults import Apply, register, use_case
from conformance.mutants.servers import Patches
from memos_server._pb.mip.v1.access_pb2 import ROLE_ADMIN
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_SECRET
from memos_server.api import endpoints, standing
from memos_server.api import server as api_server
from memos_server.errors import MipError, reason_rules

_PERMISSIONLESS = ("GetCapabilities", "ListCubes")
"""RPCs for which a forgotten permission is none: anybody, or any principal, may call them."""

_NOT_FROM_OUTSIDE = {
    *("BACKEND_UNAVAILABLE", "CANCELLED", "DATA_CORRUPT", "DEADLINE_EXCEEDED", "INTERNAL", "SHUTTING_DOWN"),
    *("STORAGE_FULL", "TOKEN_NOT_FOUND", "UNKNOWN_PAYLOAD", "WATCH_TOO_SLOW"),
}
"""Reasons that no caller brings about for certain: a disk, a clock or a fault of the server must help."""
PERMISSION_CHECKS = (
    "permissions/*",
    "absent-and-forbidden/*",
    "grants*/*",
    "order-of-checks/*",
    "server-stats/*",
    "audit/*",
    "principals/*",
)


def _methods() -> list[Any]:
    return [method for service in api_server.services() for method in service.methods]


def _forgets_permission(path: str, rpc: str, *, streams: bool, uploads: bool) -> Apply:
    def apply(patches: Patches) -> None:
        original = endpoints.Endpoint._authorize
        forgiven: set[int] = set()

        def authorize(self: Any, call: Any, request: Message) -> None:
            try:
                original(self, call, request)
            except MipError:
                if self._path != path:
                    raise
                forgiven.add(id(call))

        def raised(call: Any) -> Any:
            # Use cases look at the caller's view as well; who forgets the permission forgets it there too.
            if id(call) not in forgiven:
                return call
            grants = {**call.access.grants, "server": (ROLE_ADMIN, SENSITIVITY_SECRET)}
            return replace(call, access=replace(call.access, grants=grants))

        async def unary(use: Callable[..., Any], mos: Any, call: Any, *rest: Any) -> Any:
            return await use(mos, raised(call), *rest)

        async def stream(use: Callable[..., Any], mos: Any, call: Any, *rest: Any) -> Any:
            async for frame in use(mos, raised(call), *rest):
                yield frame

        async def always(self: Any, awaitable: Any) -> Any:
            return await awaitable

        patches.set(endpoints.Endpoint, "_authorize", authorize)
        if streams or uploads:
            patches.set(standing.Standing, "during", always)
        use_case(patches, rpc, stream if streams else unary)

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
            _forgets_permission(
                f"/{_method.containing_service.full_name}/{_method.name}",
                _method.name,
                streams=_method.server_streaming,
                uploads=_method.client_streaming,
            ),
            *PERMISSION_CHECKS,
        )
    if _method.name != "GetCapabilities":  # empty capabilities make every check inapplicable: see broken.py
        register(
            f"empty-answer/{_name}",
            f"{_name} does nothing and answers with an empty response, or with no frame.",
            _answers_empty(_method.name, GetMessageClass(_method.output_type), streams=_method.server_streaming),
        )

for _reason in sorted(set(reason_rules()) - _NOT_FROM_OUTSIDE):
    register(
        f"another-reason/{_reason}",
        f"Errors with the reason {_reason} carry {_another_reason(_reason)} instead.",
        _says_another_reason(_reason),
    )
