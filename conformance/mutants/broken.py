"""Servers that are wrong as a whole: each must fail the suite, soon and without an error of the suite's own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

_PATIENCE_S = 300

Handler = grpc.RpcMethodHandler


def _serving(behave: Callable[[Any], bytes], *, capable: bool = False) -> contextlib.AbstractContextManager[str]:
    """Returns a block in which a server answers every call alike; it yields the address."""

    class Everything(grpc.GenericRpcHandler):
        def service(self, call: grpc.HandlerCallDetails) -> Handler:
            if capable and call.method.endswith("/GetCapabilities"):
                return grpc.unary_unary_rpc_method_handler(lambda request, context: _capabilities())
            return grpc.unary_unary_rpc_method_handler(lambda request, context: behave(context))

    @contextlib.contextmanager
    def run() -> Iterator[str]:
        server = grpc.server(ThreadPoolExecutor(32))
        server.add_generic_rpc_handlers((Everything(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None)

    return run()


def _capabilities() -> bytes:
    """Returns the capabilities of a server that declares everything."""
    from mip_conformance.contract import levels, message_class, rpcs

    return message_class("GetCapabilitiesResponse")(
        protocol_version="1.0-alpha",
        services=sorted({rpc.service for rpc in rpcs().values()}),
        levels=levels(),
        features=["search.lexical", "search.vector", "search.as_of"],
        payloads=["plaintext"],
    ).SerializeToString()


def _unimplemented(context: Any) -> bytes:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")
    return b""


def _hanging(context: Any) -> bytes:
    while context.is_active():
        time.sleep(0.05)
    return b""


@contextlib.contextmanager
def _closing() -> Iterator[str]:
    """A port that takes connections and closes them."""
    listening = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                listening.accept()[0].close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        ended.set()
        listening.close()


BROKEN: dict[str, Callable[[], contextlib.AbstractContextManager[str]]] = {
    "always-unimplemented": lambda: _serving(_unimplemented),
    "always-unimplemented-but-declares-everything": lambda: _serving(_unimplemented, capable=True),
    "always-empty": lambda: _serving(lambda context: b""),
    "always-empty-but-declares-everything": lambda: _serving(lambda context: b"", capable=True),
    "hangs": lambda: _serving(_hanging, capable=True),
    "garbage-on-the-wire": lambda: _serving(lambda context: b"\xff" * 40, capable=True),
    "closes-connections": _closing,
}
"""By name, what makes a broken server."""


def main() -> None:
    """Runs the suite against each; exit status 1 when one passes, or the suite itself stumbles."""
    wrong = 0
    for name, make in BROKEN.items():
        with make() as address:
            command = [sys.executable, "-m", "mip_conformance", "run", "--target", address, "--token", "none"]
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)  # noqa: S603
        # 1: checks failed; 3: not even GetCapabilities could be called.
        found = done.returncode in (1, 3) and "Traceback" not in done.stderr
        wrong += not found
        verdict = "found" if found else f"NOT FOUND (status {done.returncode})\n{done.stderr[-2000:]}"
        sys.stdout.write(f"{name}: {verdict}, {time.perf_counter() - began:.1f} s\n")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
