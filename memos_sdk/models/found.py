"""What searching and walking along relations find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from memos_sdk._core.convert import generated
from memos_sdk._gen import wire
from memos_sdk.models.memory import Memory
from memos_sdk.models.view import View

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


class Hit(View[wire.Hit, "mip.Hit"]):
    """A memory that a search found."""

    __slots__ = ()
    _type = wire.Hit
    _shown = ("score", "memory")

    @property
    def memory(self) -> Memory:
        """The memory at the searched revision."""
        return Memory(self._wire.memory)

    @property
    def text(self) -> str:
        """The memory's text."""
        return self.memory.text

    @property
    def score(self) -> float:
        """The fused score; higher is better, comparable within one result."""
        return self._wire.score

    @property
    def explanation(self) -> mip.Explanation | None:
        """Why the memory was found; None unless the search asked."""
        return generated(self._wire.explanation) if self._wire.HasField("explanation") else None


class SearchResult(View[wire.SearchMemoriesResponse, "mip.SearchMemoriesResponse"], Sequence[Hit]):
    """The hits of a search, best first: a sequence."""

    __slots__ = ()
    _type = wire.SearchMemoriesResponse

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        """Returns a hit, or several."""
        if isinstance(index, slice):
            return [Hit(hit) for hit in self._wire.hits[index]]
        return Hit(self._wire.hits[index])

    def __len__(self) -> int:
        """Returns the number of hits."""
        return len(self._wire.hits)

    def __repr__(self) -> str:
        """Shows the hits."""
        return f"<SearchResult {list(self)!r}>"

    @property
    def memories(self) -> list[Memory]:
        """The memories of the hits, best first."""
        return [hit.memory for hit in self]

    @property
    def unreachable(self) -> tuple[str, ...]:
        """The cubes whose backend could not be reached."""
        return tuple(self._wire.unreachable)

    @property
    def stale(self) -> dict[str, int]:
        """The cubes that were searched at an older revision, and that revision."""
        return {stale.cube: stale.indexed_revision for stale in self._wire.stale}

    @property
    def notices(self) -> tuple[str, ...]:
        """What was done otherwise than asked, for people."""
        return tuple(self._wire.notices)

    @property
    def size_limited(self) -> bool:
        """True when hits were left off because the response would have been too large."""
        return self._wire.size_limited


class Traversal(View[wire.TraverseResponse, "mip.TraverseResponse"], Sequence["mip.Visit"]):
    """What a walk along relations reached, nearest first: a sequence of visits."""

    __slots__ = ()
    _type = wire.TraverseResponse

    @overload
    def __getitem__(self, index: int) -> mip.Visit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[mip.Visit]: ...
    def __getitem__(self, index: int | slice) -> mip.Visit | Sequence[mip.Visit]:
        """Returns a visit, or several."""
        if isinstance(index, slice):
            return [generated(visit) for visit in self._wire.visits[index]]
        return generated(self._wire.visits[index])

    def __len__(self) -> int:
        """Returns the number of visits."""
        return len(self._wire.visits)

    def __repr__(self) -> str:
        """Shows the visits."""
        return f"<Traversal {list(self)!r}>"

    @property
    def memories(self) -> list[Memory]:
        """The memories that were reached, nearest first."""
        return [Memory(visit.memory) for visit in self._wire.visits]

    @property
    def truncated(self) -> bool:
        """True when the limit cut the walk short."""
        return self._wire.truncated
