"""The port between MIP and a library: what a shim asks of it, in MIP's terms."""

from __future__ import annotations

import secrets
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from conformance.peers.shim.errors import Refusal, lacking
from conformance.peers.shim.filters import Filter

CALLER = "principals/admin"
"""The one principal: who has the token that the shim was started with."""


class Found(NamedTuple):
    """A memory that a search found, with the library's score."""

    memory: Any
    score: float


class Library(ABC):
    """A library behind MIP. Cubes and memories are named by their ids; messages are those of the contract.

    What has a default here is what not every library can do: it is refused as not implemented.

    Attributes:
        name: The library.
        version: Its installed version.
        notices: What is missing, for people.
    """

    name: str
    version: str
    notices: Sequence[str]

    @abstractmethod
    def create_cube(self, cube: str, display_name: str) -> Any:
        """Returns a new Cube; raises ALREADY_EXISTS."""

    @abstractmethod
    def get_cube(self, cube: str) -> Any:
        """Returns a Cube; raises CUBE_NOT_FOUND."""

    @abstractmethod
    def list_cubes(self) -> list[Any]:
        """Returns the Cubes in the order of their creation."""

    def delete_cube(self, cube: str) -> Any:
        """Returns the deleted Cube."""
        raise lacking(f"{self.name} cannot delete a collection so that it can be restored")

    def purge_cube(self, cube: str) -> Any:
        """Erases a cube and returns what is left of it."""
        raise lacking(f"{self.name} cannot erase a collection")

    @abstractmethod
    def add(self, cube: str, memories: Sequence[Any]) -> list[Any]:
        """Adds memories, whose names are set or empty, and returns them as stored."""

    @abstractmethod
    def get(self, cube: str, memory: str, *, vectors: bool = False) -> Any:
        """Returns a Memory, or None."""

    @abstractmethod
    def list_memories(self, cube: str, wanted: Filter, *, deleted: bool = False) -> list[Any]:
        """Returns the memories of a cube in the order of their addition."""

    @abstractmethod
    def update(self, cube: str, memory: Any) -> Any:
        """Replaces the content of the memory of that name and returns it as stored."""

    @abstractmethod
    def delete(self, cube: str, memories: Sequence[Any]) -> None:
        """Deletes memories that `get` returned."""

    def transition(self, cube: str, memories: Sequence[Any], state: str) -> list[Any]:
        """Moves memories to a state, `ACTIVE`, `ARCHIVED` or `DELETED`, and returns them."""
        raise lacking(f"{self.name} has no states of memories")

    def purge(self, cube: str, memories: Sequence[Any]) -> None:
        """Erases memories."""
        raise lacking(f"{self.name} cannot erase a memory with its history")

    @abstractmethod
    def search(self, cube: str, query: str | Sequence[float], wanted: Filter, top_k: int) -> list[Found]:
        """Returns what is nearest to words or to a vector, best first."""


def cube_not_found(cube: str) -> Refusal:
    """Returns the refusal of a cube that the library does not have."""
    return Refusal("CUBE_NOT_FOUND", f"there is no cube {cube}")


def new_id() -> str:
    """Returns a UUIDv7 (RFC 9562), for what the library lets its caller name."""
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=bits))


def now() -> str:
    """Returns the time as libraries write it: ISO 8601, UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
