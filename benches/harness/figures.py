"""A figure beside its limit or rival, and the table of them."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(slots=True)
class Figure:
    """One line of the table.

    Attributes:
        name: What was measured.
        unit: Of both values.
        measured: One value a round.
        rival: The values of what it is compared with, in the same rounds; empty for none.
        against: What the rival is.
        at_most: The largest ratio that meets the goal.
        at_least: The smallest ratio that meets the goal.
        note: What a reader has to know.
        ratios: The ratios, where they are not the quotients of the rounds.
    """

    name: str
    unit: str
    measured: Sequence[float]
    rival: Sequence[float] = ()
    against: str = ""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""
    ratios: Sequence[float] = field(default=())

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios: what disturbs a round disturbs both of its halves."""
        if len(self.ratios):
            return float(np.median(self.ratios))
        if not len(self.rival):
            return None
        if len(self.rival) != len(self.measured):
            return float(np.median(self.measured) / np.median(self.rival))
        return float(np.median([a / b for a, b in zip(self.measured, self.rival, strict=True)]))

    @property
    def goal(self) -> str:
        """The goal, as text; empty without one."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}x"
        return f">= {self.at_least:g}x" if self.at_least is not None else ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        ratio = self.ratio
        if ratio is None or not self.goal:
            return None
        return ratio <= self.at_most if self.at_most is not None else ratio >= (self.at_least or 0.0)

    def row(self) -> dict[str, Any]:
        """Returns the figure for JSON."""
        return {
            "figure": self.name,
            "unit": self.unit,
            "measured": median(self.measured),
            "measured_rounds": [float(value) for value in self.measured],
            "against": self.against,
            "rival": median(self.rival) if len(self.rival) else None,
            "rival_rounds": [float(value) for value in self.rival],
            "ratio": self.ratio,
            "ratios": [float(value) for value in self.ratios],
            "goal": self.goal,
            "at_most": self.at_most,
            "at_least": self.at_least,
            "met": self.met,
            "note": self.note,
        }


def from_row(row: Mapping[str, Any]) -> Figure:
    """Returns the figure that `Figure.row` was made from."""
    return Figure(
        row["figure"],
        row["unit"],
        row["measured_rounds"],
        row["rival_rounds"],
        row["against"],
        row["at_most"],
        row["at_least"],
        row["note"],
        row["ratios"],
    )


def median(values: Sequence[float]) -> float:
    """Returns the median."""
    return float(np.median(values))


def shown(value: float) -> str:
    """Returns a number with three digits that count."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Returns median and, with several rounds, the least and the greatest."""
    if len(values) < 2:
        return shown(values[0])
    return f"{shown(median(values))} ({shown(min(values))} to {shown(max(values))})"


HEADER = ("figure", "measured", "limit or rival in the same run", "ratio", "goal", "met?")


def cells(figure: Figure) -> tuple[str, ...]:
    """Returns a figure's line of the table."""
    rival = f"{spread(figure.rival)} {figure.unit}, {figure.against}" if len(figure.rival) else figure.against
    ratio = figure.ratio
    met = {None: "", True: "yes", False: "NO"}[figure.met]
    return (
        figure.name,
        f"{spread(figure.measured)} {figure.unit}",
        rival,
        "" if ratio is None else f"{ratio:.2f}x",
        figure.goal,
        met,
    )


def table(figures: Sequence[Figure]) -> str:
    """Returns the table, in the form of Markdown that reads as plain text too."""
    rows = [HEADER, *(cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [f"{figure.name}: {figure.note}" for figure in figures if figure.note]
    return "\n".join([*lines, *notes])


def machine() -> dict[str, Any]:
    """Returns what the figures depend on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = models[0].strip() if models else ""
    return {
        "cores": os.cpu_count(),
        "cpu": model or platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in ("grpcio", "protobuf", "numpy")},
    }


def write_json(path: Path, figures: Sequence[Figure], about: dict[str, Any]) -> None:
    """Writes machine, run and figures."""
    content = {"machine": machine(), **about, "figures": [figure.row() for figure in figures]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
