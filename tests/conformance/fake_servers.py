"""Servers made for one test: what they declare, and how they answer, is written in the test."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from mip_conformance.cases import Check, Requirement, checks_in
from mip_conformance.contract import levels, message_class, reasons, rpcs
from mip_conformance.running import KnownFailures, Runner, capabilities_of
from mip_conformance.target import Target
from mip_conformance.values import message_of
from mip_conformance.verdicts import Run

SERVICES = ("ServerService", "CubeService", "MemoryService", "AccessService", "GraphService", "JobService")
Behaviour = Callable[[str, bytes, Any], "bytes | Iterator[bytes]"]
"""Answers a call: its RPC (`CubeService.GetCube`), the request on the wire, and the context of grpc."""


def capabilities(*, of: Sequence[str] = ("core",), services: Sequence[str] = SERVICES, **more: Any) -> dict[str, Any]:
    """Returns what a server declares."""
    return {
        "protocol_version": "1.0-alpha",
        "server_name": "fake",
        "server_version": "1",
        "levels": list(of),
        "services": [f"mip.v1.{service}" for service in services],
        "payloads": ["plaintext"],
        **more,
    }


def wire(message: str, **fields: Any) -> bytes:
    """Returns a message of mip.v1 as bytes."""
    return message_of(message_class(message), fields).SerializeToString()


def refuse(context: Any, reason: str, message: str = "no") -> NoReturn:
    """Ends a call with an error as the contract wants it."""
    code = reasons()[reason].code
    refuse_as(context, code, message, error_details_pb2.ErrorInfo(reason=reason, domain="mip"))


def refuse_as(context: Any, code: str, message: str, *details: Any) -> NoReturn:
    """Ends a call with any code and details."""
    number = getattr(grpc.StatusCode, code).value[0]
    status = status_pb2.Status(code=number, message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    if details:
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(getattr(grpc.StatusCode, code), message)
    raise AssertionError("abort raises")


def always(answer: bytes) -> Behaviour:
    """Answers every call with the same bytes."""
    return lambda rpc, request, context: answer


def unimplemented(rpc: str, request: bytes, context: Any) -> bytes:
    """Answers as a server does to what it does not implement."""
    refuse(context, "UNIMPLEMENTED")


def hanging(rpc: str, request: bytes, context: Any) -> bytes:
    """Never answers."""
    while context.is_active():
        time.sleep(0.02)
    return b""


def by_rpc(answers: Mapping[str, bytes]) -> Behaviour:
    """Answers each RPC with its bytes, others with UNIMPLEMENTED."""

    def behave(rpc: str, request: bytes, context: Any) -> bytes:
        return answers[rpc] if rpc in answers else unimplemented(rpc, request, context)

    return behave


@contextlib.contextmanager
def serving(behave: Behaviour, declared: Mapping[str, Any] | None = None) -> Iterator[Target]:
    """Runs a server.

    Args:
        behave: How it answers.
        declared: What GetCapabilities answers; None leaves that, too, to `behave`.
    """
    told = None if declared is None else wire("GetCapabilitiesResponse", **declared)
    by_path = {rpc.path: rpc for rpc in rpcs().values()}

    class Everything(grpc.GenericRpcHandler):
        def service(self, call: grpc.HandlerCallDetails) -> Any:
            rpc = by_path[call.method]
            if told is not None and rpc.name == "GetCapabilities":
                return grpc.unary_unary_rpc_method_handler(lambda request, context: told)
            if rpc.server_streaming:
                return grpc.unary_stream_rpc_method_handler(lambda request, context: behave(rpc.rpc, request, context))
            return grpc.unary_unary_rpc_method_handler(lambda request, context: behave(rpc.rpc, request, context))

    pool = ThreadPoolExecutor(32)
    server = grpc.server(pool)
    server.add_generic_rpc_handlers((Everything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Target(f"127.0.0.1:{port}", "a-token")
    finally:
        server.stop(None).wait()
        pool.shutdown()


@contextlib.contextmanager
def closing() -> Iterator[Target]:
    """Runs a port that takes connections and closes them at once."""
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                listening.accept()[0].close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield Target(f"127.0.0.1:{listening.getsockname()[1]}")
    finally:
        # A shutdown wakes the thread that accepts; closing alone would not.
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


def suite(folder: Path, **files: str) -> tuple[Check, ...]:
    """Writes files of cases into a new folder and returns their checks."""
    cases = folder / "cases"
    cases.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (cases / f"{name}.yaml").write_text(content, encoding="utf-8")
    return checks_in(cases)


def requirement(id_: str, keyword: str = "MUST", level: str = "core") -> Requirement:
    """Returns a line of conformance/requirements/."""
    return Requirement(id_, level, keyword, f"What {id_} says.", "")


def run(
    target: Target,
    checks: Sequence[Check],
    *,
    of: Sequence[str] = ("core",),
    requirements: Sequence[Requirement] = (),
    known: Mapping[str, str] | None = None,
    jobs: int = 4,
    keep: bool = False,
    whole: bool = True,
) -> Run:
    """Runs checks against a server, as the command does."""
    client = target.connect()
    try:
        declared = capabilities_of(client)
        runner = Runner(target, client, declared, requirements, KnownFailures(known or {}))
        return runner.run(checks, [level for level in levels() if level in of], jobs=jobs, keep=keep, whole=whole)
    finally:
        client.close()
