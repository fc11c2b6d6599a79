"""A disk of a few megabytes for an engine, in a mount namespace that needs no privileges and outlives the engine.

The process of this module makes the namespace and holds it; the engine is started inside with `nsenter`, as often as a
test likes, and finds its data again. Others see the disk below `/proc/PID/root`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.durability.small_disk import mounted
from tools.engines import Engine


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


def main() -> None:
    """Mounts the disk (`POINT SIZE`) and holds it until its input ends."""
    point, size = sys.argv[1:]
    if mounted(point, f"size={size},mode=0700", user=os.getuid(), group=os.getgid()):
        sys.stdin.read()


if __name__ == "__main__":
    main()
