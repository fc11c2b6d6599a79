"""docs/testing.md lists every check with its tier: nothing sits in no tier, and no row names nothing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIERS = {"test", "ci", "long"}


def table(heading: str) -> dict[str, str]:
    """Returns first column -> tier of the table under a heading of docs/testing.md."""
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    section = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    found = {row[0].strip("`"): row[-1] for row in rows[2:]}
    assert len(found) == len(rows) - 2, "a check is listed twice"
    return found


def test_every_test_file_stands_in_exactly_one_row() -> None:
    patterns = {pattern.removesuffix("**"): tier for pattern, tier in table("Tests").items()}
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(files) > 5
    rows_of = {file: [pattern for pattern in patterns if file.startswith(pattern)] for file in files}
    assert {file: rows for file, rows in rows_of.items() if len(rows) != 1} == {}
    unused = [pattern for pattern in patterns if not any(file.startswith(pattern) for file in files)]
    assert unused == []


def test_every_marker_stands_in_the_table() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    markers = {marker.split(":")[0] for marker in settings["tool"]["pytest"]["ini_options"]["markers"]}
    assert set(table("Markers")) == markers


def test_every_ci_step_stands_in_the_table() -> None:
    steps = re.findall(r"^step (\S+) \S+$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(steps) == len(set(steps)) > 5
    assert list(table("Steps of .ci/run")) == steps


def test_every_tier_is_one_of_the_three() -> None:
    tiers = {tier for heading in ("Tests", "Markers", "Steps of .ci/run") for tier in table(heading).values()}
    assert tiers <= TIERS


def test_make_test_leaves_out_the_long_tests_and_the_engines_alone() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r'^test:.*\n\t.*-m "not long and not engines"$', makefile, flags=re.MULTILINE)


def test_make_test_engines_runs_what_is_over_engines_and_not_long() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r'^test-engines:.*\n.*\n\t.*-m "engines and not long"$', makefile, flags=re.MULTILINE)
