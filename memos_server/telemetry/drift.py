"""How far search indexes are behind the logs, as numbers alone."""

from __future__ import annotations

from typing import NamedTuple


class IndexDrift(NamedTuple):
    """What the last look at all cubes found, and what cannot be brought up now.

    Attributes:
        broken: Cubes whose index this server cannot bring up to the log now.
        cubes: How many cubes the last whole sweep looked at; 0 before the first one ended.
        behind: Of these, how many were behind without being written to at that moment.
        worst: How far the farthest of them was behind, commits.
        seconds: How long the sweep took.
        end_time: When it ended, seconds since the epoch; 0 before the first one ended.
    """

    broken: int = 0
    cubes: int = 0
    behind: int = 0
    worst: int = 0
    seconds: float = 0.0
    end_time: float = 0.0
