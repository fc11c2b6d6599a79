"""Writes the synchronous client (memos_sdk/_sync) from the asynchronous one (memos_sdk/_async), word for word.

Only what waits differs between the two, so only words are replaced. `transport.py` is written by hand on both sides.
`--check` fails when a file is not what this would write.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "memos_sdk"
BY_HAND = {"__init__.py", "transport.py"}
HEADER = (
    "# Generated from memos_sdk/_async/{name} by tools/gen_sync_client.py.\n"
    "# fmt: off\n# ruff: noqa: I001, UP028, RUF100\n"
)
REPLACEMENTS = (
    (r"\basync def\b", "def"),
    (r"\basync for\b", "for"),
    (r"\basync with\b", "with"),
    (r"\bawait ", ""),
    (r"\baiter\(", "iter("),
    (r"\banext\(", "next("),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\bIterable\[MemoryLike\] \| AsyncIterable\[MemoryLike\]", "Iterable[MemoryLike]"),
    (r"\bAsyncIterable, ", ""),
    (r"\bAsync([A-Z]\w*)", r"\1"),
    (r"\b_async\b", "_sync"),
    (r"  # noqa: ASYNC\d+[^\n]*", ""),
)


def translate(name: str, source: str) -> str:
    """Returns the synchronous form of a module."""
    for pattern, replacement in REPLACEMENTS:
        source = re.sub(pattern, replacement, source)
    return HEADER.format(name=name) + source


def expected() -> dict[Path, str]:
    """Returns what each generated file holds."""
    return {
        ROOT / "_sync" / path.name: translate(path.name, path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "_async").glob("*.py"))
        if path.name not in BY_HAND
    }


def main(arguments: list[str]) -> int:
    """Writes the files, or with `--check` names those that differ."""
    if "--check" in arguments:
        stale = [path for path, text in expected().items() if not path.is_file() or path.read_text("utf-8") != text]
        print("\n".join(f"{path} is not up to date" for path in stale) or "the synchronous client is up to date")
        return 1 if stale else 0
    for path, text in expected().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
