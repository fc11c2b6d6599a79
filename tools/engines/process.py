"""One engine in a folder of its own: started until it answers, stopped gracefully or killed; its data stay."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import psutil

from tools.engines import build, guard, ports

LOOPBACK: Final = "127.0.0.1"
_POLL_S: Final = 0.05
_LOG_LINES: Final = 15


class EngineError(Exception):
    """An engine did not start, or not stop; the text has the last lines of its log."""


class Engine(ABC):
    """A process with data in a folder. Not for several threads at once.

    Attributes:
        folder: Holds its data, its log and `engine.json`: ports and process.
        ports: Its ports by name; they stay the same over starts as long as nobody else takes them.
        log: What it prints, of all starts.
    """

    name: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        folder: Path | str,
        *,
        tls: bool = False,
        tied: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describes an engine; nothing runs yet.

        Args:
            folder: Made if it is not there; what is in it is used.
            tls: Whether it speaks TLS, with a certificate for 127.0.0.1 and localhost by an authority of the folder.
            tied: True ends the engine with this process, even when that is killed. False lets it run on.
            environment: Further environment variables of the process.
        """
        self.folder = Path(folder).resolve()
        self.tls = tls
        self.ports: dict[str, int] = {}
        self.log = self.folder / "engine.log"
        self._tied = tied
        self._environment = dict(environment or {})
        self._state = self.folder / "engine.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._base: int | None = None

    # What an engine differs in.

    @abstractmethod
    def _command(self) -> tuple[list[str], dict[str, str]]:
        """Writes its settings; returns its arguments and environment."""

    @abstractmethod
    def _answers(self) -> bool:
        """Tells whether it serves; may raise OSError while it does not."""

    @abstractmethod
    def config(self, *, files: bool = False) -> dict[str, Any]:
        """Returns the keyword arguments of the server's backend.

        Args:
            files: True names files with the secrets instead of the secrets.
        """

    def _started(self) -> None:  # noqa: B027 - most engines need nothing
        """Does what only a running engine permits, after each start."""

    # What they have in common.

    @property
    def pid(self) -> int | None:
        """The running process, also of an earlier starter; None when none runs."""
        process = self._running()
        return process.pid if process else None

    def start(self, timeout_s: float = 180.0) -> None:
        """Starts it and waits until it answers.

        Raises:
            NotBuilt: It has not been made.
            EngineError: It runs already, ended, or did not answer in time.
        """
        build.require(self.name)
        running = self._running()
        if running:
            raise EngineError(f"{self.name} runs already in {self.folder}, process {running.pid}")
        self._forget()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take_ports()
        arguments, environment = self._command()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                arguments,
                cwd=self.folder,
                env=_environment() | environment | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C for the tests is none for the engine, which they stop when they have cleaned up.
                start_new_session=True,
            )
        if self._tied:
            guard.tie(self._process.pid)
        self._write_state(self._process.pid)
        self._wait_for_answer(timeout_s)
        self._started()

    def stop(self, timeout_s: float = 60.0) -> None:
        """Ends it gracefully; does nothing when it does not run.

        Raises:
            EngineError: It did not end in time, and was killed.
        """
        process = self._running()
        if process:
            process.send_signal(signal.SIGTERM)
            if not self._ended(timeout_s):
                self.kill()
                raise EngineError(
                    f"{self.name} did not end {timeout_s:g} s after SIGTERM and was killed{self._last_lines()}"
                )
        self._forget()

    def kill(self) -> None:
        """Kills it (SIGKILL) and waits until it is gone; does nothing when it does not run."""
        process = self._running()
        if process:
            process.kill()
            if not self._ended(30):
                raise EngineError(f"{self.name}, process {process.pid}, is there 30 s after SIGKILL")
        self._forget()

    def close(self) -> None:
        """Stops it and gives its ports back."""
        try:
            self.stop()
        finally:
            if self._base is not None:
                ports.release(self._base)
                self._base = None

    def __enter__(self) -> Engine:
        """Starts it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops it."""
        self.close()

    @property
    def ca_file(self) -> Path:
        """The authority's certificate, PEM; there after a start with `tls`."""
        return self.folder / "tls" / "ca.pem"

    def _certificate(self) -> tuple[Path, Path]:
        """Returns the files of certificate and key, which it makes first if need be."""
        from memos_server.configs import tls

        folder = self.folder / "tls"
        if not (folder / "server.pem").exists():
            tls.init(folder, [LOOPBACK, "localhost"])
        return folder / "server.pem", folder / "server.key"

    def _secret(self, given: str | None, file: str) -> str:
        """Returns a secret that stays the same in a folder: the given one, or one by chance from its first use on."""
        path = self.folder / file
        if given is None and path.exists():
            return path.read_text(encoding="utf-8").strip()
        # Letters and digits: no engine takes them for an option.
        secret = given if given is not None else secrets.token_hex(24)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_text(secret + "\n", encoding="utf-8")
        return secret

    def _connects(self, port: int) -> bool:
        with socket.create_connection((LOOPBACK, port), timeout=2):
            return True

    def _context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=str(self.ca_file)) if self.tls else None

    def _take_ports(self) -> None:
        known = self._read_state().get("base")
        if self._base is not None and all(ports.is_free(port) for port in range(self._base, self._base + ports.BLOCK)):
            return
        if self._base is not None:
            ports.release(self._base)
        self._base = ports.reserve(known)
        self.ports = {name: self._base + offset for offset, name in enumerate(self.port_names)}

    def _wait_for_answer(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        process = self._process
        assert process is not None
        while time.monotonic() < deadline:
            status = process.poll()
            if status is not None:
                self._forget()
                raise EngineError(f"{self.name} ended with status {status} while it started{self._last_lines()}")
            try:
                if self._answers():
                    return
            except OSError:
                pass
            time.sleep(_POLL_S)
        self.kill()
        raise EngineError(f"{self.name} did not answer {timeout_s:g} s after its start{self._last_lines()}")

    def _running(self) -> psutil.Process | None:
        state = self._read_state()
        if "pid" not in state:
            return None
        try:
            process = psutil.Process(state["pid"])
            # A number alone may by now be another process's.
            if abs(process.create_time() - state["created"]) > 0.1 or process.status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.NoSuchProcess:
            return None
        if not self.ports:
            self.ports = {name: state["base"] + offset for offset, name in enumerate(self.port_names)}
        return process

    def _ended(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            # What another process started stays a zombie until that one asks for its status.
            if (self._process is not None and self._process.poll() is not None) or self._running() is None:
                return True
            time.sleep(_POLL_S / 5)
        return False

    def _forget(self) -> None:
        if self._process is not None:
            self._process.wait()
            if self._tied:
                guard.untie(self._process.pid)
            self._process = None
        state = self._read_state()
        if state.pop("pid", None) is not None:
            self._state.write_text(json.dumps(state), encoding="utf-8")

    def _write_state(self, pid: int) -> None:
        try:
            created = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            return
        self._state.write_text(json.dumps({"base": self._base, "pid": pid, "created": created}), encoding="utf-8")

    def _read_state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return state

    def _last_lines(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        except FileNotFoundError:
            return ""
        return f". The last of {self.log}:\n" + "\n".join(lines)


def _environment() -> dict[str, str]:
    """The environment without what is meant for this server or for another engine of the person's."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "JAVA_HOME", "USER")
    return {name: os.environ[name] for name in kept if name in os.environ}
