"""The SDK's version."""

from __future__ import annotations

import importlib.metadata

try:
    __version__ = importlib.metadata.version("memos-mip")
except importlib.metadata.PackageNotFoundError:
    # Run from a source tree that is not installed.
    __version__ = "0+unknown"
