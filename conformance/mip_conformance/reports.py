"""The report in the forms that people and programs read: JSON, JUnit, a page, a badge."""

from __future__ import annotations

import json
from pathlib import Path

from mip_conformance.verdicts import Run, as_report


def write_reports(
    run: Run,
    *,
    json_: Path | None = None,
    junit: Path | None = None,
    html: Path | None = None,
    badge: Path | None = None,
) -> None:
    """Writes the report where it is asked for.

    Raises:
        OSError: A file cannot be written.
    """
    report = as_report(run)
    if json_ is not None:
        json_.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
