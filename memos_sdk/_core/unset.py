"""UNSET: an argument that was not given, where None has a meaning of its own."""

from __future__ import annotations


class Unset:
    """The type of UNSET, which stands for an argument that was not given; None is a value of its own: cleared."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()
