"""Ends engines whose starter is gone: a small process at the other end of a pipe that breaks when the starter dies.

Linux could tell a child of its parent's death itself (PR_SET_PDEATHSIG), but means the *thread* that started it, and
tests start engines from threads that end long before the process does.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

_SOURCE: Final = """
import os, signal, sys
os.setsid()
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
children = set()
for line in sys.stdin:
    word, pid = line.split()
    (children.add if word == "add" else children.discard)(int(pid))
for pid in children:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""

_lock = threading.Lock()
_pipe: int | None = None
_owner = 0


def tie(pid: int) -> None:
    """Has a process killed when this one ends, however it ends."""
    _tell(f"add {pid}\n")


def untie(pid: int) -> None:
    """Forgets a process, which has ended."""
    _tell(f"drop {pid}\n")


def _tell(line: str) -> None:
    with _lock:
        os.write(_ready(), line.encode())


def _ready() -> int:
    """Returns the pipe to this process's guard, started if need be. Nobody waits for the guard: it ends last."""
    global _pipe, _owner
    if _pipe is None or _owner != os.getpid():
        theirs, ours = os.pipe()
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        command = [sys.executable, "-I", "-S", "-c", _SOURCE]
        os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
        os.close(theirs)
        _pipe, _owner = ours, os.getpid()
    return _pipe
