"""Starts the shim in front of MemOS: `python -m conformance.peers.memoryos --stdin`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from conformance.peers.shim import start
from conformance.peers.shim.library import Library


def _make(folder: Path) -> Library:
    # MemOS writes logs and databases below this folder, read while it is imported; the default is the current one.
    os.environ["MEMOS_BASE_PATH"] = str(folder)
    from conformance.peers.memoryos.memories import MemOs

    return MemOs(folder)


if __name__ == "__main__":
    sys.exit(start.run(_make))
