"""Draws a run of bench.py: latencies beside the drivers', and what the processes held while it ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

INK, GRID = "#22303c", "#e6eaee"
COLOURS = {"neo4j": "#0b6bcb", "weaviate": "#d9480f", "server0": "#2b8a3e", "server1": "#862e9c"}
SERVER, RAW = "#2b8a3e", "#8b98a5"


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Writes the plot of the parts that are there.

    Args:
        results: What bench.py keeps.
        path: An SVG or PNG file.
    """
    figures = [row for part in results["parts"].values() for row in part["figures"]]
    pairs = [row for row in figures if row["figure"].endswith(" p50") and row["rival"] and "raw" in row["against"]]
    plt.rcParams.update({"font.size": 8, "text.color": INK, "axes.edgecolor": GRID, "svg.hashsalt": "engines"})
    page, axes = plt.subplots(1, 3, figsize=(14, 0.32 * max(len(pairs), 8) + 1.2), width_ratios=(2.2, 1.4, 1.4))
    _bars(axes[0], pairs)
    samples = results.get("watch", [])
    _lines(axes[1], samples, "rss", 2**20, "Resident memory, MiB")
    _lines(axes[2], samples, "connections", 1, "Established connections")
    page.tight_layout()
    page.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(page)


def _bars(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for place, row in enumerate(rows):
        axes.barh(place - 0.19, row["measured"], 0.36, color=SERVER)
        axes.barh(place + 0.19, row["rival"], 0.36, color=RAW)
        axes.text(row["measured"], place - 0.19, f" {row['measured']:.3g}, {row['ratio']:.2f} x", va="center")
        axes.text(row["rival"], place + 0.19, f" {row['rival']:.3g}", va="center", color=RAW)
    axes.set_yticks(range(len(rows)), [row["figure"].removesuffix(", p50") for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_title("Median of a call, ms: the server (green) and the drivers (grey)", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _lines(axes: Axes, samples: Sequence[Mapping[str, Any]], key: str, unit: float, title: str) -> None:
    minute = 0.0
    moments = []
    last = 0.0
    for row in samples:
        # Parts of several runs follow one another.
        minute += max(row["second"] - last, 0.0) / 60
        last = row["second"]
        moments.append(minute)
    for name, colour in COLOURS.items():
        points = [(at, row[name][key] / unit) for at, row in zip(moments, samples, strict=True) if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.1, label=name)
    axes.set_title(title, loc="left")
    axes.set_xlabel("minutes of the run")
    axes.set_ylim(bottom=0)
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if samples:
        axes.legend(frameon=False)
