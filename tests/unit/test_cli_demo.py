"""`memos demo` with the real server, as a subprocess, on text of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = """# Tea

Ada prefers green tea to coffee, and drinks it without sugar in the afternoon.

# Work

The release of the compiler is planned for Friday, after the last tests have passed.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(TEXT)
    return tmp_path


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MEMOS_", "XDG_"))}
    environment |= {"HOME": str(folder), "NO_COLOR": "1", "TMPDIR": str(folder), "COLUMNS": "120"}
    command = [sys.executable, "-m", "memos_sdk.cli.main", "demo", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_the_demo_shows_the_main_job_and_leaves_nothing_behind(folder: Path) -> None:
    done = demo(folder)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 100
    for expected in ("1. A server of its own", "README.md:3-3", "6. The log", "verified: ", "grpcurl -plaintext"):
        assert any(expected in line for line in lines), (expected, done.stdout)
    assert sum("yes" in line for line in lines) >= 2
    # The command line's own memory of heads stands in ~/.local; the demo's server and data are gone.
    assert [path.name for path in folder.iterdir() if path.name.startswith("memos-demo")] == []


def test_the_demo_tells_programs_what_it_found(folder: Path) -> None:
    done = demo(folder, "README.md", "--query", "what does Ada drink?", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["memories"] == 2
    assert (facts["rolled_back"], facts["found_as_of"], facts["verified"]) == (True, True, True)
    assert facts["install_bytes"] > 0
