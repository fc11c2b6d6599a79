"""The tables of docs/benchmarks.md and docs/scale.md from a run of bench.py, as Markdown.

python benches/engines/report.py build/bench-engines.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.figures import Figure, from_row, shown

Row = Sequence[str]


def markdown(header: Row, rows: Sequence[Row]) -> str:
    """Returns a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def comparison(figure: Figure) -> Row:
    """Returns a figure's row, as docs/benchmarks.md has them."""
    met = {None: "", True: "yes", False: "**no**"}[figure.met]
    row = figure.row()
    rival = f"{shown(row['rival'])} {figure.unit}, {figure.against}" if row["rival"] is not None else figure.against
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    return figure.name, f"{shown(row['measured'])} {figure.unit}", rival, ratio, figure.goal.removesuffix("x"), met


def units(facts: Mapping[str, Any]) -> Iterator[Row]:
    """Yields what a memory costs, through the server and written with the drivers."""
    for side, what in (("server", "server"), ("raw", "drivers")):
        if side not in facts:
            continue
        loaded = facts[side]
        count = loaded["memories"]
        for name, value in loaded["disk"].items():
            yield f"disk, {name}, {what}", f"{shown(value / count)} bytes a memory"
        yield f"memory of Weaviate, {what}", f"{shown(loaded['rss']['weaviate'] / count)} bytes a memory"
        for name, value in loaded["cpu"].items():
            yield f"processor time of {name}, loading, {what}", f"{shown(value / count * 1e6)} us a memory"
    for key, value in facts.items():
        if key.startswith("search "):
            for name, each in value["us a call"].items():
                yield f"processor time of {name}, a hybrid search, {key.removeprefix('search ')}", f"{shown(each)} us"
        if key.startswith("add "):
            for name, each in value.items():
                yield f"processor time of {name}, {key}", f"{shown(each)} us a memory"


def tenants(facts: Mapping[str, Any]) -> Iterator[Row]:
    """Yields what a tenant costs in each state."""
    found = facts.get("tenants of weaviate")
    if not found:
        return
    for state, level in found["levels"].items():
        for name, value in level.items():
            yield f"a tenant of {found['memories each']}, {state}", f"{shown(value)} {name.removesuffix(' a tenant')}"
    for key, value in found.items():
        if key.endswith("_ms"):
            yield key.removesuffix("_ms").replace("_", " "), f"{shown(value)} ms"


def cubes(facts: Mapping[str, Any]) -> Iterator[Row]:
    """Yields how a server and its engines grow with cubes."""
    for row in facts.get("cubes", {}).get("rows", []):
        held = [
            f"{shown(row[name]['rss'] / 2**20)}, {row[name]['files']:.0f}, {row[name]['connections']:.0f}"
            for name in ("neo4j", "weaviate", "server0")
            if name in row
        ]
        yield f"{row['cubes']:,}", shown(row["make_ms"]), shown(row["add_ms"]), shown(row["index_ms"]), *held


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    results = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    figures = [from_row(row) for part in results["parts"].values() for row in part["figures"]]
    header = ("figure", "measured", "rival in the same run", "ratio", "goal", "met")
    print(markdown(header, [comparison(figure) for figure in figures]), end="\n\n")
    facts = results["facts"]
    print(markdown(("what", "cost"), [*units(facts), *tenants(facts)]), end="\n\n")
    held = ("Neo4j", "Weaviate", "server")
    columns = ("cubes", "make, ms", "add 100, ms", "index, ms", *(f"{name}: MiB, files, connections" for name in held))
    print(markdown(columns, list(cubes(facts))), end="\n\n")
    for name in ("neo4j", "weaviate", "server0", "server1"):
        seen = [row[name] for row in results["watch"] if name in row]
        if seen:
            most = {key: max(each[key] for each in seen) for key in ("rss", "files", "connections")}
            print(f"{name}: at most {most['rss'] / 2**20:,.0f} MiB, {most['files']:.0f} open files,", end=" ")
            print(f"{most['connections']:.0f} connections")


if __name__ == "__main__":
    main()
