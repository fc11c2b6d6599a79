"""Writes the table of docs/faults.md from what the tests left in build/faults: `python -m tests.engines.results`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "faults.md"
RESULTS: Final = ROOT / "build" / "faults"
BEGIN: Final = "<!-- results: begin -->"
END: Final = "<!-- results: end -->"
_HEAD: Final = (
    "| fault | times | servers, callers | calls | acknowledged | answer unknown | errors that callers saw"
    " | searches not whole | first write after | index whole after | promises |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|\n"
)


def row(found: Mapping[str, Any]) -> str:
    """Returns a result as a row of the table."""
    errors = ", ".join(f"{count} {name}" for name, count in found.get("errors", {}).items()) or "none"
    searches = ", ".join(f"{count} {word}" for word, count in found.get("degraded", {}).items()) or "none"
    facts = ", ".join(f"{name}: {value}" for name, value in found.get("facts", {}).items())
    cells = [
        f"{found['fault']}{f' ({facts})' if facts else ''}",
        str(found.get("rounds", 1)),
        f"{found.get('servers', '')}, {found.get('callers', '')}",
        str(found.get("operations", "")),
        str(found.get("acknowledged", "")),
        str(found.get("open", "")),
        errors,
        searches,
        _seconds(found.get("recovered_s")),
        _seconds(found.get("converged_s")),
        str(found["result"]),
    ]
    return f"| {' | '.join(cells)} |\n"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def table() -> str:
    """Returns the table of all results, in the order of their names."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    return _HEAD + "".join(row(one) for one in found)


def main() -> None:
    """Puts the table into the page."""
    if not RESULTS.exists():
        sys.exit("there are no results in build/faults: run `pytest -m engines tests/engines` first")
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
