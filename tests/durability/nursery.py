"""Real servers that start in a fraction of a second: one process imports everything, and each server is a fork of it.

with Nursery() as nursery:
    server = nursery.server(folder)
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType


class Server:
    """A server process on a folder, perhaps not yet listening."""

    def __init__(self, nursery: Nursery, data: Path, pid: int, log: Path) -> None:
        """Takes a process that the nursery started."""
        self._nursery = nursery
        self.data = data
        self.pid = pid
        self.log = log
        self.ended = False

    def address(self) -> str:
        """Waits until it listens and returns where.

        Raises:
            RuntimeError: It ended, with what it said.
        """
        deadline = time.monotonic() + 60
        while not (self.data / "server.json").exists():
            if self._nursery.ask({"poll": self.pid}) or time.monotonic() > deadline:
                self.ended = True
                raise RuntimeError(self.log.read_text())
            time.sleep(0.005)
        return str(json.loads((self.data / "server.json").read_text())["address"])

    @property
    def token(self) -> str:
        """The local administrator's token."""
        return (self.data / "admin.token").read_text().strip()

    def end(self, number: signal.Signals) -> int:
        """Sends a signal, waits for the end and returns the exit status, negative for the signal that ended it."""
        if self.ended:
            return 0
        os.kill(self.pid, number)
        self.ended = True
        return self._nursery.ask({"wait": self.pid})


class Nursery:
    """The process that servers are forks of."""

    def __enter__(self) -> Nursery:
        """Starts it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def ask(self, order: dict[str, object]) -> int:
        """Gives an order and returns the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        return int(self._process.stdout.readline())

    def server(self, data: Path) -> Server:
        """Starts a server on a folder; it does not listen yet."""
        (data / "server.json").unlink(missing_ok=True)
        log = data.parent / f"{data.name}.log"
        pid = self.ask({"serve": str(data), "log": str(log)})
        return Server(self, data, pid, log)


def _serve(data: str, log: str) -> None:
    """Becomes a server; what follows is what `python -m memos_server serve` does."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    for name in [name for name in os.environ if name.startswith("MEMOS_")]:
        del os.environ[name]
    os.environ["MEMOS_EMBEDDER__BACKEND"] = "none"
    os.environ["MEMOS_EMBEDDING__DEFAULT_MODEL"] = "none"
    sys.argv = ["memos_server", "serve", "--data", data, "--listen", "127.0.0.1:0"]
    runpy.run_module("memos_server", run_name="__main__")


def _main() -> None:
    """Does what it is told, line by line, until nobody is left to tell it."""
    import memos_server.commands
    import memos_server.main  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        if "serve" in order:
            pid = os.fork()
            if not pid:
                status = 1
                try:
                    _serve(order["serve"], order["log"])
                except SystemExit as end:
                    status = int(end.code or 0)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
            print(pid, flush=True)
        else:
            ended, status = os.waitpid(order.get("wait", order.get("poll")), 0 if "wait" in order else os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if ended else 0
            print(code if "wait" in order else int(ended > 0), flush=True)


if __name__ == "__main__":
    _main()
