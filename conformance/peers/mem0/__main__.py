"""Starts the shim in front of mem0: `python -m conformance.peers.mem0 --stdin`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from conformance.peers.shim import start
from conformance.peers.shim.library import Library


def _make(folder: Path) -> Library:
    # mem0 reads both while it is imported: it sends usage statistics unless told not to, and keeps a file in the home.
    os.environ["MEM0_TELEMETRY"] = "False"
    os.environ["MEM0_DIR"] = str(folder / "mem0")
    from conformance.peers.mem0.memories import Mem0

    return Mem0(folder)


if __name__ == "__main__":
    sys.exit(start.run(_make))
