"""What a search works on: the cubes in its scope, and the candidates that their indexes propose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memos_server._pb.mip.v1.cube_pb2 import CubeContent
from memos_server.graph_dbs.base import CubeRow
from memos_server.mem_os.access import CubeView


@dataclass(slots=True)
class Scope:
    """One cube of a search.

    Attributes:
        cube: The cube as it was when the search began.
        settings: Its settings.
        view: What the caller sees of it.
        revision: The revision that is searched.
        granted: uid -> level of the memories that single grants show.
        read_at: When `cube` was read, seconds of the monotonic clock.
        vector: The query's vector, float32 (dimension,); None where there is none.
    """

    cube: CubeRow
    settings: CubeContent
    view: CubeView
    revision: int
    granted: dict[str, int] = field(default_factory=dict)
    read_at: float = 0.0
    vector: NDArray[np.float32] | None = None


class Channel(NamedTuple):
    """What one channel found of a candidate.

    Attributes:
        name: `lexical`, `vector` or `graph`.
        score: The channel's own score.
        contribution: What it adds to the fused score.
    """

    name: str
    score: float
    contribution: float


@dataclass(slots=True)
class Ranked:
    """A candidate with its fused score, the sum of its channels' contributions. There are hundreds of them for each hit
    that is returned: what only an explanation needs is made for the hits alone."""

    scope: Scope
    uid: str
    from_revision: int
    score: float
    channels: tuple[Channel, ...]
    matched: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
