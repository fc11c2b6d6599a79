"""Backends of packages outside this tree, which the suites take in once they are installed beside the server.

A suite runs with every backend of its port that an entry point names. Settings that a backend needs come from the
environment: `MEMOS_TEST_BACKENDS='{"NAME": {"url": "…"}}'`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from memos_server.configs.backends import load_backend


def plugged(group: str) -> Mapping[str, Callable[[object], Any]]:
    """Returns name -> what makes a backend from a data folder, of the backends that other packages bring.

    Args:
        group: The entry point group, such as `memos.vec_dbs`.
    """
    config = json.loads(os.environ.get("MEMOS_TEST_BACKENDS", "{}"))
    names = {entry.name for entry in metadata.entry_points(group=group) if not entry.module.startswith("memos_server.")}

    def maker(name: str) -> Callable[[object], Any]:
        return lambda folder: load_backend(group, name, str(folder), **config.get(name, {}))

    return {name: maker(name) for name in sorted(names)}
