"""The folders of tests/data/folders, each as a version of the server wrote it (tools/make_folder_fixture.py)."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from memos_server.configs.data_folder import FORMAT_VERSION
from tests.support.folder_story import digest_of

FOLDERS = Path(__file__).resolve().parents[1] / "data" / "folders"
VERSIONS = range(1, FORMAT_VERSION + 1)


def unpack(version: int, data: Path) -> Path:
    """Unpacks the folder that a version wrote."""
    with tarfile.open(FOLDERS / f"v{version}.tar.xz") as archive:
        archive.extractall(data, filter="data")
    data.chmod(0o700)
    return data


def told(version: int) -> dict[str, Any]:
    """Returns what the server that wrote a folder answered about it."""
    found: dict[str, Any] = json.loads((FOLDERS / f"v{version}.json").read_text(encoding="utf-8"))
    return found


def files_of(data: Path) -> dict[str, str]:
    """Returns path -> digest of everything in a folder."""
    return {
        str(path.relative_to(data)): digest_of(path.read_bytes()) if path.is_file() else "folder"
        for path in data.rglob("*")
    }
