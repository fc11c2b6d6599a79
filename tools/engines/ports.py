"""Ports for engines: blocks of eight on the loopback interface that no other engine of this machine's user takes.

The blocks lie below the range from which the system gives ports to outgoing connections and to `port 0`, so a port that
is free when an engine is about to start is not taken by chance a moment later. Against other engines a locked file
stands for the block as long as the process lives that reserved it.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

BLOCK: Final = 8
"""Ports of a block; what one engine needs at most."""

FIRST: Final = 12_000
LAST: Final = 31_992
"""Where blocks begin, at multiples of eight."""

_held: dict[int, int] = {}


def reserve(preferred: int | None = None) -> int:
    """Reserves a block for this process and returns its first port.

    Args:
        preferred: The block that was used before; taken again if it is free, so that clients
            need not know a new address.

    Raises:
        OSError: A thousand blocks were tried and none was free.
    """
    chosen = random.Random(os.urandom(16))
    candidates = [chosen.randrange(FIRST, LAST + 1, BLOCK) for _ in range(1000)]
    for base in ([preferred] if preferred else []) + candidates:
        if _lock(base):
            if all(is_free(port) for port in range(base, base + BLOCK)):
                return base
            release(base)
    raise OSError(f"no block of {BLOCK} free ports found between {FIRST} and {LAST}")


def release(base: int) -> None:
    """Gives a block back."""
    handle = _held.pop(base, None)
    if handle is not None:
        os.close(handle)


def _lock(base: int) -> bool:
    if base in _held:
        return False
    folder = Path(tempfile.gettempdir()) / f"memos-engine-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(folder / str(base), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return False
    _held[base] = handle
    return True


def is_free(port: int) -> bool:
    """Tells whether nothing listens on a port, on any interface."""
    # Some engines listen on all interfaces, so all must be free.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
