"""How the command line lays out tables."""

from __future__ import annotations

import io

from rich.console import Console

from memos_sdk.cli.context import cell, make_table


def shown(width: int) -> list[str]:
    table = make_table([">REVISION", "WHEN", "~WHY"])
    table.add_row(cell(7), cell("2026-11-21 11:45:10"), cell("because it\nhad to be so"))
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_wide_window_shows_everything_in_a_line_each() -> None:
    assert shown(80) == [
        "REVISION  WHEN                 WHY",
        "       7  2026-11-21 11:45:10  because it had to be so",
    ]


def test_a_narrow_window_cuts_the_text_and_nothing_else() -> None:
    assert shown(42) == [
        "REVISION  WHEN                 WHY",
        "       7  2026-11-21 11:45:10  because it…",
    ]
