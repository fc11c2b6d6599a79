"""`make demo ENGINE=…`: the demo over engines that it starts and stops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import engines

pytestmark = pytest.mark.engines

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "chosen", ["neo4j+weaviate", *(pytest.param(each, marks=pytest.mark.long) for each in ("neo4j", "weaviate+s3"))]
)
@pytest.mark.weights
def test_the_demo_runs_over_engines_and_leaves_none_running(chosen: str, tmp_path: Path) -> None:
    engines.need(*chosen.split("+"))
    text = tmp_path / "notes.md"
    text.write_text(
        "# Tea\n\nAda prefers tea.\n\n# Work\n\nGrace wrote a compiler.\n\n# Care\n\nA rollback undoes a change.\n"
    )
    command = [sys.executable, "-m", "tools.engines", "run", chosen, "--"]
    command += [str(Path(sys.executable).parent / "memos"), "demo", "--config", "{config}", "--json", str(text)]
    # What it starts has its files there, and so is found again.
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout[done.stdout.index("\n{") :])
    assert facts["memories"] == 3
    assert facts["rolled_back"]
    assert facts["found_as_of"]
    assert facts["verified"]
    left = [
        each.info for each in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(each.info["cmdline"] or [])
    ]
    assert left == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("memos-engines-")] == []
