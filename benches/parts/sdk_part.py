"""The SDK against raw protobuf stubs, by benches/sdk.py, which is a program of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from harness.figures import Figure, from_row
from harness.world import World

_PROGRAM = Path(__file__).resolve().parent.parent / "sdk.py"


def measure(world: World) -> list[Figure]:
    """Returns the figures that benches/sdk.py prints."""
    result = world.folder / "sdk.json"
    command = [sys.executable, str(_PROGRAM), "--json", str(result), *(["--quick"] if world.quick else [])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [from_row(row) for row in json.loads(result.read_text(encoding="utf-8"))["figures"]]
