"""A real server process on a folder, as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class ServerProcess:
    """Starts `python -m memos_server serve` on a folder and finds where it listens."""

    def __init__(self, data: Path, *arguments: str) -> None:
        """Starts the server; returns when it has written where it listens."""
        self.data = data
        info = data / "server.json"
        info.unlink(missing_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MEMOS_")}
        environment["MEMOS_EMBEDDER__BACKEND"] = "none"
        environment["MEMOS_EMBEDDING__DEFAULT_MODEL"] = "none"
        self.log = (data.parent / f"{data.name}.log").open("ab")
        command = [sys.executable, "-m", "memos_server", "serve", "--data", str(data), "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen([*command, *arguments], stderr=self.log, stdout=self.log, env=environment)
        deadline = time.monotonic() + 30
        while not info.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((data.parent / f"{data.name}.log").read_text())
            time.sleep(0.02)
        self.address: str = json.loads(info.read_text())["address"]

    @property
    def token(self) -> str:
        """The local administrator's token."""
        return (self.data / "admin.token").read_text().strip()

    def kill(self) -> None:
        """Ends the process as a crash would: nothing runs after this."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def stop(self) -> int:
        """Ends the process as an operator would; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=30)
        self.log.close()
        return status
