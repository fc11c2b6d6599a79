# Generated from memos_sdk/_async/cube_graph.py by tools/gen_sync_client.py.
# fmt: off
# ruff: noqa: I001, UP028, RUF100
"""The relations between a cube's memories."""

from __future__ import annotations

from collections.abc import Iterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from memos_sdk import _stubs
from memos_sdk._sync.cube_base import CubeBase
from memos_sdk._core.build import NameLike, as_of_revision, memory_name
from memos_sdk._core.convert import enum_number, generated, to_wire
from memos_sdk._gen import wire
from memos_sdk.models import Commit, Mutation, Traversal

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


class CubeGraph(CubeBase):
    """Relates memories and follows their relations."""

    def relate(
        self,
        source: NameLike,
        target: NameLike,
        type: str = "RELATES_TO",
        *,
        weight: float = 1.0,
        cause: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Mutation:
        """Creates a relation from one memory to another; one that exists gets the new weight.

        Args:
            source: The memory that the relation leaves.
            target: The memory that it enters.
            type: The type, upper case: `PARENT_OF` builds the tree; `RELATES_TO`, `DERIVED_FROM`, `CONTRADICTS`,
                `FOLLOWS`, or a word of your own.
            weight: The weight, above 0.
            cause: Why; it stands in the log.
            expected_revision: The revision that the cube must have; 0 skips the check.
            request_id: A UUID that makes repeating safe; one is made when empty.
            timeout: Seconds.

        Raises:
            InvalidArgument: A memory would get a second parent, or the tree a cycle.
        """
        return self._relate(
            [self._relation(source, target, type, weight)],
            cause=cause,
            expected_revision=expected_revision,
            request_id=request_id,
            timeout=timeout,
        )

    def relate_many(
        self,
        relations: Iterable[mip.Relation | tuple[NameLike, NameLike, str]],
        *,
        cause: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Mutation:
        """Creates up to 1,000 relations in one commit, given as (source, target, type) or as messages."""
        return self._relate(
            [
                self._relation(*relation) if isinstance(relation, tuple) else to_wire(relation, wire.Relation)
                for relation in relations
            ],
            cause=cause,
            expected_revision=expected_revision,
            request_id=request_id,
            timeout=timeout,
        )

    def _relate(
        self,
        relations: Sequence[wire.Relation | dict[str, Any]],
        *,
        cause: str,
        expected_revision: int,
        request_id: str,
        timeout: float | None,
    ) -> Mutation:
        request = _stubs.CREATE_RELATIONS(
            parent=self.name,
            relations=relations,
            cause=cause,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        response = self._caller.call(_stubs.CREATE_RELATIONS, request, timeout)
        return Mutation(
            Commit(response.commit),
            relations=tuple(generated(relation) for relation in response.relations),
            index_pending=response.index_pending,
        )

    def unrelate(
        self,
        source: NameLike,
        target: NameLike,
        type: str = "RELATES_TO",
        *,
        cause: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Mutation:
        """Deletes a relation.

        Raises:
            NotFound: There is no such relation.
        """
        request = _stubs.DELETE_RELATIONS(
            parent=self.name,
            relations=[self._relation(source, target, type)],
            cause=cause,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        response = self._caller.call(_stubs.DELETE_RELATIONS, request, timeout)
        return Mutation(Commit(response.commit), index_pending=response.index_pending)

    def relations(
        self,
        memory: NameLike | None = None,
        *,
        direction: mip.Direction | str = "both",
        types: Iterable[str] = (),
        as_of: int | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[mip.Relation]:
        """Yields the relations of a memory, or of the whole cube, in the order of their creation.

        Args:
            memory: The memory; None means all of the cube.
            direction: `outgoing`, `incoming` or `both`.
            types: The types to keep; none means all.
            as_of: The revision to read at.
            page_size: How many one call fetches; 0 lets the server choose.
            timeout: Seconds of each call.
        """
        request = _stubs.LIST_RELATIONS(
            parent=self.name,
            memory="" if memory is None else memory_name(self.name, memory),
            direction=enum_number("Direction", direction, "direction"),
            types=list(types),
            as_of_revision=as_of_revision(as_of),
            page_size=page_size,
        )
        for relation in self._caller.pages(_stubs.LIST_RELATIONS, request, "relations", timeout):
            yield generated(relation)

    def traverse(
        self,
        *starts: NameLike,
        types: Iterable[str] = (),
        direction: mip.Direction | str = "outgoing",
        max_depth: int = 1,
        limit: int = 0,
        as_of: int | None = None,
        timeout: float | None = None,
    ) -> Traversal:
        """Walks from memories along relations, breadth first, and returns what it reaches, the starts included.

        Args:
            *starts: The memories to start from, up to 100.
            types: The types to follow; none means all.
            direction: `outgoing`, `incoming` or `both`.
            max_depth: The most steps, up to 16.
            limit: The most memories; 0 means 100.
            as_of: The revision to read at.
            timeout: Seconds.
        """
        request = _stubs.TRAVERSE(
            parent=self.name,
            starts=self._names(starts),
            types=list(types),
            direction=enum_number("Direction", direction, "direction"),
            max_depth=max_depth,
            limit=limit,
            as_of_revision=as_of_revision(as_of),
        )
        return Traversal(self._caller.call(_stubs.TRAVERSE, request, timeout))

    def _relation(self, source: NameLike, target: NameLike, type: str, weight: float = 0.0) -> dict[str, Any]:
        return {
            "source": memory_name(self.name, source),
            "target": memory_name(self.name, target),
            "type": type,
            "weight": weight,
        }
