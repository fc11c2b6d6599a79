"""The report as a badge: one line of SVG for a README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mip_conformance.reports.texts import joined, shortened, tag, visible

_GREEN, _AMBER, _RED, _GREY = "#2e7d32", "#9a6700", "#c62828", "#5f6368"
_VERSION = 24
"""Characters of the protocol version, which the server names, that a badge shows."""
_PADDING = 6
_NARROW, _WIDE = "fijlrtI.,:;|'()[]/- ", "mwMW@%"


def badge_of(report: Mapping[str, Any]) -> str:
    """Returns the image: the protocol, and the levels that passed or failed.

    Args:
        report: The report, as `verdicts.as_report` makes it.
    """
    label = f"MIP {shortened(visible(report['server']['protocol_version']), _VERSION)}".strip()
    message, colour = _verdict(report)
    left, right = (_width(text) + 2 * _PADDING for text in (label, message))
    shown = f"{label}: {message}"
    drawn = tag(
        "svg",
        tag("title", shown),
        tag("rect", width=str(left + right), height="20", rx="3", fill=colour),
        # The label's corners are round on the left alone.
        tag("path", d=f"M3 0H{left}V20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z", fill="#444b53"),
        tag(
            "g",
            _text(label, _PADDING, left - 2 * _PADDING),
            _text(message, left + _PADDING, right - 2 * _PADDING),
            fill="#fff",
            font_family="Verdana,DejaVu Sans,Geneva,sans-serif",
            font_size="11",
        ),
        xmlns="http://www.w3.org/2000/svg",
        width=str(left + right),
        height="20",
        role="img",
        aria_label=shown,
    )
    return joined((drawn, "\n"))


def _verdict(report: Mapping[str, Any]) -> tuple[str, str]:
    levels = {name: level for name, level in report["levels"].items() if "checks" in level}
    failed = [name for name, level in levels.items() if level["verdict"] == "failed"]
    if not report["whole"]:
        # Some of the checks say nothing about a level, least of all with a green badge.
        return "partial run" if report["passed"] else "partial run failed", _GREY if report["passed"] else _RED
    if not report["passed"]:
        return f"{' '.join(failed)} failed".strip(), _RED
    if failed:
        known = sum(level["checks"]["known"] for level in levels.values())
        return f"{known} known failure{'' if known == 1 else 's'} in {' '.join(failed)}", _AMBER
    return " ".join(levels), _GREEN


def _text(text: str, left: int, width: int) -> str:
    # The length is given, so that the text fits whatever font there is.
    return tag("text", text, x=str(left), y="14", textLength=str(width), lengthAdjust="spacingAndGlyphs")


def _width(text: str) -> int:
    """Returns about how many pixels a text takes in Verdana of 11 pixels."""
    return round(
        sum(4.2 if char in _NARROW else 10.3 if char in _WIDE else 8 if char.isupper() else 6.8 for char in text)
    )
