"""What searching and walking along relations find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from memos_sdk._gen.mip import v1 as mip
from memos_sdk.models.memory import Memory
from memos_sdk.models.view import View


class Hit(View[mip.Hit]):
    """A memory that a search found."""

    __slots__ = ()
    _shown = ("score", "memory")

    @property
    def memory(self) -> Memory:
        """The memory at the searched revision."""
        return Memory(self._message.memory or mip.Memory())

    @property
    def text(self) -> str:
        """The memory's text."""
        return self.memory.text

    @property
    def score(self) -> float:
        """The fused score; higher is better, comparable within one result."""
        return self._message.score

    @property
    def explanation(self) -> mip.Explanation | None:
        """Why the memory was found; None unless the search asked."""
        return self._message.explanation


class SearchResult(View[mip.SearchMemoriesResponse], Sequence[Hit]):
    """The hits of a search, best first: a sequence."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        """Returns a hit, or several."""
        if isinstance(index, slice):
            return [Hit(hit) for hit in self._message.hits[index]]
        return Hit(self._message.hits[index])

    def __len__(self) -> int:
        """Returns the number of hits."""
        return len(self._message.hits)

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
        return tuple(self._message.unreachable)

    @property
    def stale(self) -> dict[str, int]:
        """The cubes that were searched at an older revision, and that revision."""
        return {stale.cube: stale.indexed_revision for stale in self._message.stale}

    @property
    def notices(self) -> tuple[str, ...]:
        """What was done otherwise than asked, for people."""
        return tuple(self._message.notices)

    @property
    def size_limited(self) -> bool:
        """True when hits were left off because the response would have been too large."""
        return self._message.size_limited


class Traversal(View[mip.TraverseResponse], Sequence[mip.Visit]):
    """What a walk along relations reached, nearest first: a sequence of visits."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: int) -> mip.Visit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[mip.Visit]: ...
    def __getitem__(self, index: int | slice) -> mip.Visit | Sequence[mip.Visit]:
        """Returns a visit, or several."""
        return self._message.visits[index]

    def __len__(self) -> int:
        """Returns the number of visits."""
        return len(self._message.visits)

    def __repr__(self) -> str:
        """Shows the visits."""
        return f"<Traversal {self._message.visits!r}>"

    @property
    def memories(self) -> list[Memory]:
        """The memories that were reached, nearest first."""
        return [Memory(visit.memory or mip.Memory()) for visit in self._message.visits]

    @property
    def truncated(self) -> bool:
        """True when the limit cut the walk short."""
        return self._message.truncated
