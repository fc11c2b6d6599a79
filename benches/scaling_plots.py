"""Draws what benches/scaling.py measured: one page of small plots for memories in a cube, one for cubes in a server.

    python benches/scaling_plots.py scaling.json [more.json] --out docs/img

Axes are logarithmic, so a cost that grows with the size is a line that rises one decade a decade, and a cost that does
not is level; the broken grey line shows the first. Numbers stand at the ends, so that no axis has to be read.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

INK, FAINT, GRID = "#22303c", "#8b98a5", "#e6eaee"
COLOURS = ("#0b6bcb", "#d9480f", "#2b8a3e", "#862e9c")

Panel = tuple[str, str, Sequence[tuple[str, str]]]
"""Title, unit, and the lines: (key in the file, name)."""

MEMORIES: Sequence[Panel] = (
    ("Add", "ms", (("add_one_ms", "1 memory"), ("add_thousand_ms", "1,000 memories"))),
    ("Get one · list a page of 100", "ms", (("get_ms", "get"), ("list_page_ms", "list"))),
    (
        "Search, 10 hits",
        "ms",
        (("search_lexical_ms", "words"), ("search_hybrid_ms", "hybrid"), ("search_graph_ms", "graph")),
    ),
    ("Roll 1,000 changes back", "ms", (("rollback_thousand_ms", "rollback"),)),
    ("Verify the whole cube", "s", (("verify_ms", "verify"),)),
    ("Start the server · its first search", "ms", (("start_ms", "start"), ("first_search_ms", "first search"))),
    ("Memory of the server", "MiB", (("memory_mib", "after adding"), ("memory_restarted_mib", "after a restart"))),
    ("Disk", "MiB", (("disk_mib", "record and index"),)),
)
CUBES: Sequence[Panel] = (
    ("Make a cube with 10 memories", "ms", (("make_ms", "make and add"),)),
    ("Open a cube · list a page of 100 cubes", "ms", (("open_ms", "open"), ("list_cubes_ms", "list"))),
    ("Add a memory to each in turn", "ms", (("add_in_turn_ms", "add"),)),
    ("Search one cube · up to 100 at once", "ms", (("search_one_ms", "one"), ("search_across_ms", "across"))),
    ("Start the server · stop it", "ms", (("start_ms", "start"), ("stop_ms", "stop"))),
    ("Memory of the server", "MiB", (("memory_mib", "after use"), ("memory_restarted_mib", "after a restart"))),
)


def number(value: float) -> str:
    """Returns a number as short as three digits permit: 950, 1.2k, 30k, 1M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit * 0.9995:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the axis: at least three decades, so that what hardly changes looks level."""
    low, high = min(values), max(values)
    missing = max(0.0, 3.0 - math.log10(high / low))
    return low / 10 ** (missing / 2) / 1.8, high * 10 ** (missing / 2) * 1.8


def draw_panel(axes: Axes, panel: Panel, rows: Sequence[dict[str, float]], by: str) -> None:
    """Draws one small plot."""
    title, unit, lines = panel
    factor = 1e-3 if unit == "s" else 1.0
    sizes = [row[by] for row in rows]
    every: list[float] = []
    ends: list[tuple[float, float, str, str]] = []
    for colour, (key, name) in zip(COLOURS, lines, strict=False):
        values = [row[key] * factor for row in rows]
        every += values
        axes.plot(sizes, values, color=colour, linewidth=2, marker="o", markersize=4, solid_capstyle="round", zorder=3)
        ends.append((values[0], values[-1], colour, name))
    low, high = _range(every)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.set_xlim(sizes[0] / 1.7, sizes[-1] * (sizes[-1] / sizes[0]) ** 0.42)
    start = (low * high) ** 0.5 / (sizes[-1] / sizes[0]) ** 0.5
    axes.plot(
        [sizes[0], sizes[-1]],
        [start, start * sizes[-1] / sizes[0]],
        color="#cfd6dc",
        linewidth=1.1,
        linestyle=(0, (4, 3)),
        zorder=1,
    )
    # Names at the ends of the lines, pushed apart where they would lie on each other.
    apart = (high / low) ** 0.19
    at = 0.0
    for first, last, colour, name in sorted(ends, key=lambda end: end[1]):
        at = max(last, at * apart)
        axes.annotate(
            f"{name}\n{number(first)} → {number(last)} {unit}",
            (sizes[-1], at),
            xytext=(7, 0),
            textcoords="offset points",
            color=colour,
            fontsize=7.6,
            va="center",
            linespacing=1.25,
        )
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, fontweight="bold", pad=8)
    axes.set_xticks([10**power for power in range(0, 8) if sizes[0] <= 10**power <= sizes[-1]])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(colors=FAINT, labelsize=7.5, length=0, which="both")
    axes.grid(True, which="major", color=GRID, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def draw(
    path: Path, title: str, under: str, panels: Sequence[Panel], rows: Sequence[dict[str, float]], by: str
) -> None:
    """Draws a page."""
    columns = 2
    height = -(-len(panels) // columns)
    figure, grid = plt.subplots(height, columns, figsize=(10, 2.45 * height + 0.9), facecolor="white")
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw_panel(axes, panel, rows, by)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    total = figure.get_size_inches()[1]
    figure.text(0.035, 1 - 0.27 / total, title, fontsize=13, fontweight="bold", color=INK, va="center")
    figure.text(0.035, 1 - 0.52 / total, under, fontsize=8.5, color=FAINT, va="center")
    figure.subplots_adjust(left=0.06, right=0.975, top=1 - 1.0 / total, bottom=0.4 / total, hspace=0.46, wspace=0.13)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, metadata=metadata)
    plt.close(figure)


def main() -> None:
    """Draws both pages, as far as the files hold their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="what benches/scaling.py wrote")
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    parser.add_argument("--format", choices=("svg", "png"), default="svg")
    options = parser.parse_args()
    plt.rcParams.update({"svg.hashsalt": "memos", "font.family": "DejaVu Sans", "savefig.dpi": 130})
    found: dict[str, Any] = {"memories": [], "cubes": []}
    for file in options.files:
        content = json.loads(file.read_text(encoding="utf-8"))
        found["machine"] = content["machine"]
        for part in ("memories", "cubes"):
            found[part] += content[part]
    machine = found["machine"]
    under = f"{machine['cores']} cores, {machine['cpu']}, Python {machine['python']}; the broken line grows as the size"
    if found["memories"]:
        title = "What it costs against the number of memories in a cube"
        draw(options.out / f"cost-by-memories.{options.format}", title, under, MEMORIES, found["memories"], "size")
    if found["cubes"]:
        title = "What it costs against the number of cubes in a server"
        draw(options.out / f"cost-by-cubes.{options.format}", title, under, CUBES, found["cubes"], "cubes")


if __name__ == "__main__":
    main()
