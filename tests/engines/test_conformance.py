"""The conformance suite passes over every pair of a record and an index, as it does over the embedded engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import engines

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]
PAIRS = [
    "neo4j+weaviate+s3",
    pytest.param("sqlite+weaviate+filesystem", marks=pytest.mark.long),
    pytest.param("neo4j+embedded+filesystem", marks=pytest.mark.long),
]


@pytest.mark.parametrize("backends", PAIRS)
def test_every_check_passes_over(backends: str, tmp_path: Path) -> None:
    file = tmp_path / "engines.toml"
    file.write_text(engines.toml(backends), encoding="utf-8")
    report = tmp_path / "report.json"
    server = f"{sys.executable} -m conformance.mutants.reference --settings {file}"
    command = [sys.executable, "-m", "mip_conformance", "run", "--command", server, "--json", str(report)]
    # Most of the time a check waits for engines.
    command += ["--jobs", "12"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False)
    assert report.exists(), ended.stdout[-2000:] + ended.stderr[-4000:]
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    failed = [check for check in found["checks"] if check["result"] == "failed"]
    assert not failed, json.dumps(failed[:5], indent=1)
    assert found["passed"], found["problems"]
    assert found["whole"]
    assert {level["verdict"] for level in found["levels"].values()} == {"passed"}
    assert ended.returncode == 0, ended.stdout[-2000:]
