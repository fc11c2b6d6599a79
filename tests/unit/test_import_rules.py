"""The contracts of .importlinter name every part of the server; `make lint-imports` checks that the code keeps them."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "memos_server"


def contract(name: str) -> configparser.SectionProxy:
    """Returns a contract of .importlinter."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter", encoding="utf-8")
    return parser[f"importlinter:contract:{name}"]


def modules(text: str) -> set[str]:
    """Returns the modules that a setting names, comments left out."""
    lines = [line for line in text.splitlines() if not line.strip().startswith("#")]
    return set(re.findall(r"memos_\w+(?:\.\w+)*", "\n".join(lines)))


def parts() -> set[str]:
    """Returns the packages and modules directly below the server."""
    packages = {path.parent.name for path in SERVER.glob("*/__init__.py")}
    return {f"memos_server.{name}" for name in packages | {path.stem for path in SERVER.glob("*.py")} - {"__init__"}}


def test_every_part_of_the_server_has_its_layer() -> None:
    assert parts() - modules(contract("layers")["layers"]) == set()


def test_every_package_with_backends_is_held_to_its_port() -> None:
    groups = {
        path.parent.name for path in SERVER.glob("*/base.py") if path.parent.name not in {"memories", "mem_os", "api"}
    }
    assert groups == {"graph_dbs", "vec_dbs", "blob_stores", "embedders"}
    assert modules(contract("backends")["source_modules"]) == {f"memos_server.{group}" for group in groups}


def test_every_registered_backend_is_closed_to_the_use_cases() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    registered = {
        target.split(":")[0]
        for group, targets in project["entry-points"].items()
        if group in {"memos.graph_dbs", "memos.vec_dbs", "memos.blob_stores", "memos.embedders"}
        for target in targets.values()
    }
    assert registered == modules(contract("use-cases-know-ports")["forbidden_modules"])


def test_the_sdk_and_the_server_are_independent() -> None:
    assert modules(contract("sdk-alone")["modules"]) == {"memos_server", "memos_sdk"}
