"""The report in the forms that people and programs read: JSON, JUnit, a page, a badge; all are made from the JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mip_conformance.reports.badge import badge_of
from mip_conformance.reports.junit import junit_of
from mip_conformance.reports.page import page_of
from mip_conformance.verdicts import Run, as_report


def json_of(report: Mapping[str, Any]) -> str:
    """Returns the report as the text of a JSON file."""
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


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
    for path, form in ((json_, json_of), (junit, junit_of), (html, page_of), (badge, badge_of)):
        if path is not None:
            # Half of a surrogate pair, which only JSON lets through, becomes its escape: JSON again.
            path.write_bytes(form(report).encode("utf-8", "backslashreplace"))
