"""A server as a subprocess, for the demo: started in a folder, awaited, ended."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from memos_sdk.errors import FailedPrecondition, MipError, Unavailable

if TYPE_CHECKING:
    from memos_sdk import Client

_WAIT_SECONDS = 60.0


class EmbeddedServer:
    """A server of this environment on a free port of the loopback interface.

    Attributes:
        address: Where it listens.
        data: Its data folder.
        log: What it printed.
        command: How it was started.
    """

    def __init__(self, data: Path, config: Path | None = None) -> None:
        """Starts the server.

        Args:
            data: Its data folder, whatever the settings say.
            config: A file of settings, such as which engines hold record, index and blobs.

        Raises:
            FailedPrecondition: The server's package is not installed.
        """
        if importlib.util.find_spec("memos_server") is None:
            raise FailedPrecondition(
                "the demo starts a server, which is not installed",
                reason="SERVER_NOT_INSTALLED",
                remedy='pip install "memos-mip[server]"',
            )
        self.data = data
        self.log = data / "server.log"
        data.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        command = [sys.executable, "-m", "memos_server", "serve", "--data", str(data), "--listen", self.address]
        command += ["--config", str(config.resolve())] if config else []
        self.command = command
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MEMOS_")}
        with self.log.open("wb") as log:
            # A group of its own: Ctrl-C ends the demo, which then ends the server in order.
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
            )

    def client(self) -> Client:
        """Returns a client with the server's own token, once the server answers.

        Raises:
            Unavailable: The server ended, or does not answer in time; the message shows what it printed last.
        """
        from memos_sdk import Client, RetryPolicy

        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with (
                contextlib.suppress(MipError),
                Client(self.address, token="", data=self.data, retry=RetryPolicy(max_attempts=1)) as probe,
            ):
                probe.capabilities(timeout=2.0)
                return Client(self.address, data=self.data, timeout=60.0)
            time.sleep(0.1)
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-1500:].strip()
        raise Unavailable(
            f"the server did not start: {tail or 'it printed nothing'}",
            reason="SERVER_NOT_STARTED",
            remedy="Run `memos doctor`, or `python -m memos_server serve` to see all it says.",
        )

    def stop(self) -> None:
        """Ends the server as an operator would, and by force when it does not end within ten seconds."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
