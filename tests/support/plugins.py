"""Packages outside this tree, installed beside the server without network, build backend or the environment's files."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


def install(project: Path, site: Path) -> Path:
    """Puts a project's package and metadata into a folder, as an installer does, and returns the folder.

    The folder works as one of PYTHONPATH or of `sys.path`.

    Args:
        project: The folder of a pyproject.toml; the package is the folder beside it that is named like the project.
        site: The folder that takes it.
    """
    table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    package = table["name"].replace("-", "_")
    shutil.copytree(project / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    return describe(site, table["name"], table["version"], table["entry-points"])


def describe(site: Path, name: str, version: str, entry_points: Mapping[str, Mapping[str, str]]) -> Path:
    """Writes the metadata of a package whose modules lie in a folder, and returns the folder.

    Args:
        site: The folder.
        name: The package.
        version: Its version.
        entry_points: group -> name -> `module:object`.
    """
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = [
        line
        for group, entries in entry_points.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return site
