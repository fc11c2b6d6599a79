"""A disk of a few megabytes for an engine, in a mount namespace that needs no privileges and outlives the engine.

The process of this module makes the namespace and holds it; the engine is started inside with `nsenter`, as often as a
test likes, and finds its data again. Others see the disk below `/proc/PID/root`.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tools.engines import Engine

_NEW_MOUNTS = 0x00020000
_NEW_USER = 0x10000000


class SmallDisk:
    """A disk that is mounted at a path, for processes that `inside` starts."""

    def __init__(self, point: Path, megabytes: int) -> None:
        """Makes the disk; skips the test where that is not permitted."""
        point.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.engines.small_disk", str(point), f"{megabytes}m"]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        answer = self._holder.stdout.readline().strip()
        if answer != "ready":
            self.close()
            pytest.skip(answer or "not run: no disk can be mounted here without privileges")
        self.seen = Path(f"/proc/{self._holder.pid}/root{point}")

    def inside(self, arguments: list[str]) -> list[str]:
        """Returns the command that runs another one where the disk is mounted; it keeps its process id."""
        return ["nsenter", f"--target={self._holder.pid}", "--user", "--mount", "--preserve-credentials", *arguments]

    def fill(self) -> None:
        """Writes until there is no space."""
        with (self.seen / "ballast").open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def free(self) -> None:
        """Takes away what `fill` wrote."""
        (self.seen / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Ends the disk."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.wait(timeout=30)
        self._holder.stdout.close()

    def __enter__(self) -> Self:
        """Returns the disk."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the disk."""
        self.close()


def on_disk(engine: Engine, disk: SmallDisk) -> Engine:
    """Lets an engine start where the disk is mounted; everything else of it stays."""
    original = engine._command

    def command() -> tuple[list[str], dict[str, str]]:
        arguments, environment = original()
        return disk.inside(arguments), environment

    engine._command = command  # type: ignore[method-assign]
    return engine


def _call(library: Any, name: str, *arguments: object) -> None:
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def main() -> None:
    """Mounts the disk (`POINT SIZE`) and holds it until its input ends."""
    point, size = sys.argv[1:]
    user, group = os.getuid(), os.getgid()
    library = ctypes.CDLL(None, use_errno=True)
    try:
        _call(library, "unshare", _NEW_USER | _NEW_MOUNTS)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        _call(library, "mount", b"none", os.fsencode(point), b"tmpfs", 0, f"size={size},mode=0700".encode())
    except OSError as error:
        print(f"not run: no disk can be mounted here without privileges ({error.strerror or error})", flush=True)
        return
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
