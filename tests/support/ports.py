"""Ports for servers that tests start in processes of their own, where the port must be known before."""

from __future__ import annotations

import random
import socket

_LOWEST, _HIGHEST = 20_000, 32_000
"""Below the ports that the system gives to outgoing connections: those of other tests would take a port from there."""


def free_port() -> int:
    """Returns a port of loopback that nothing listens on now."""
    while True:
        port = random.randint(_LOWEST, _HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
