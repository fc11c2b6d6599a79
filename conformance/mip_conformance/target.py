"""The server under test: one that listens already, or a command that the suite starts."""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from mip_conformance.client import Client

_CONNECT_S = 15.0
_START_S = 120.0
_STOP_S = 20.0


class TargetError(Exception):
    """The server cannot be started or reached; the text says why and what to do."""


@dataclass(frozen=True)
class Target:
    """Where the server is, and how to be let in.

    Attributes:
        address: Host and port.
        token: The token of a principal that administers the server; empty for none.
        tls: True for TLS.
        ca: A file with the certificates to trust, PEM; None for those of the system.
        client_certificate: A file with a certificate to show, PEM.
        client_key: Its key.
    """

    address: str
    token: str = ""
    tls: bool = False
    ca: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None

    def connect(self) -> Client:
        """Returns a connection.

        Raises:
            TargetError: There is no server, or a file cannot be read.
        """
        credentials = None
        if self.tls:
            try:
                credentials = grpc.ssl_channel_credentials(
                    *(
                        path.read_bytes() if path else None
                        for path in (self.ca, self.client_key, self.client_certificate)
                    )
                )
            except OSError as error:
                raise TargetError(f"{error.filename} cannot be read: {error.strerror}") from None
        client = Client(self.address, credentials)
        try:
            client.wait(_CONNECT_S)
        except grpc.FutureTimeoutError:
            client.close()
            hint = (
                "Check address and certificates." if self.tls else "Check the address; a server with TLS needs --tls."
            )
            raise TargetError(f"no server takes connections at {self.address}. {hint}") from None
        return client


@contextlib.contextmanager
def started(command: str) -> Iterator[Target]:
    """Starts a server by a command, and ends it by closing its standard input.

    The command reads one line of JSON from its standard input, `{"listen": "127.0.0.1:0", "token": TOKEN}`, serves with
    that token as that of its administrator, and writes one line of JSON to its standard output,
    `{"address": HOST:PORT}`; a `token` in it takes the place of the one it was given.

    Raises:
        TargetError: It does not do so.
    """
    token = secrets.token_urlsafe(24)
    try:
        process = subprocess.Popen(  # noqa: S603  what the person who runs the suite asked for
            shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace"
        )
    except (OSError, ValueError) as error:
        raise TargetError(f"the command cannot be started: {error}") from None
    try:
        yield _announced(process, token)
    finally:
        _stop(process)


def _announced(process: subprocess.Popen[str], token: str) -> Target:
    lines: list[str] = []
    told = threading.Event()

    def talk() -> None:
        if process.stdin is None or process.stdout is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.write(json.dumps({"listen": "127.0.0.1:0", "token": token}) + "\n")
            process.stdin.flush()
        with process.stdout as output:
            lines.append(output.readline())
            told.set()
            # Read on: a full pipe would stop a server that goes on writing.
            for _ in output:
                pass

    threading.Thread(target=talk, name="output of the command", daemon=True).start()
    if not told.wait(_START_S) or not lines[0].strip():
        what = f"it wrote nothing within {_START_S:.0f} s"
        if told.is_set():
            try:
                what = f"it ended with status {process.wait(1.0)}"
            except subprocess.TimeoutExpired:
                what = "its first line is empty"
        raise TargetError(
            f"the command named no address: {what}. It must write one line such as"
            ' {"address": "127.0.0.1:7600"} to its standard output.'
        )
    try:
        answer = json.loads(lines[0])
        return Target(address=str(answer["address"]), token=str(answer.get("token", token)))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TargetError(f"the command's first line is no JSON with an address: {lines[0].strip()[:200]}") from None


def _stop(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    ends: tuple[Callable[[], object], ...] = (lambda: None, process.terminate, process.kill)
    for end in ends:
        end()
        try:
            process.wait(_STOP_S)
            return
        except subprocess.TimeoutExpired:
            continue
