"""The kept corpus, and how many random inputs a run tries.

`corpus/TARGET/` holds one file an input, named for what it is. Every run tries all of them, then random ones: some in
`make test`, a hundred times as many in `make test-all`. What a random run finds becomes a file here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

FOLDER = Path(__file__).parent / "corpus"
MANY = 100
"""How many times as many random inputs the long tier tries."""
_MANY_S = 1200
"""How long those may take: some tests need two minutes on two idle cores, and a busy machine is several times slower.

A limit that strikes in the midst of an example is reported as that example's failure, so it must be far away."""

EFFORTS = pytest.mark.parametrize(
    "effort",
    [
        pytest.param(1, id="short"),
        pytest.param(MANY, id="long", marks=[pytest.mark.long, pytest.mark.timeout(_MANY_S)]),
    ],
)
"""Runs a test with `effort` 1, and in the long tier with MANY as well."""


def files(target: str) -> list[Path]:
    """Returns the corpus of a target, in order."""
    return sorted(path for path in (FOLDER / target).iterdir() if path.is_file())


def kept(target: str) -> Any:
    """Runs a test once for each file of a target's corpus, given as `file`."""
    return pytest.mark.parametrize("file", [pytest.param(path, id=path.name) for path in files(target)])


def fuzz(examples: int, body: Callable[[T], None], inputs: SearchStrategy[T]) -> None:
    """Tries `body` with random inputs.

    Args:
        examples: How many.
        body: Fails on what must not be.
        inputs: What it is tried with.
    """

    def checked(value: T) -> None:
        body(value)

    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    settings(max_examples=examples, deadline=None, suppress_health_check=quiet)(given(inputs)(checked))()
