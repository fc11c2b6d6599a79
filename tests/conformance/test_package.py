"""The suite needs neither the server nor the SDK of this repository."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import mip_conformance

PACKAGE = Path(mip_conformance.__file__).parent
WITHOUT = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("memos_server", "memos_sdk", "tests", "conformance"):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Blocker())
import mip_conformance
for module in pkgutil.walk_packages(mip_conformance.__path__, "mip_conformance."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
from mip_conformance.cli import app
app(["list"])
"""


def test_every_module_and_the_command_work_without_server_and_sdk() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for module in ("cli", "running", "reports.page", "reports.junit", "reports.badge"):
        assert f"mip_conformance.{module}\n" in done.stdout
    assert "request-ids/a-repeated-call-takes-effect-once" in done.stdout


def test_no_module_names_server_or_sdk() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    assert found - set(sys.stdlib_module_names) == {
        "mip_conformance",
        "cel",
        "google",
        "grpc",
        "rich",
        "typer",
        "yaml",
    }
