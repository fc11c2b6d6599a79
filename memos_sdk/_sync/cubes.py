# Generated from memos_sdk/_async/cubes.py by tools/gen_sync_client.py.
# fmt: off
# ruff: noqa: I001, UP028, RUF100
"""Cubes: the cubes of a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memos_sdk import _stubs
from memos_sdk._sync.caller import LONG_TIMEOUT, Caller
from memos_sdk._sync.cube import Cube
from memos_sdk._core.build import labels_of
from memos_sdk._core.names import cube_name
from memos_sdk._core.unset import UNSET, Unset
from memos_sdk.errors import AlreadyExists, UsageError
from memos_sdk.models import Commit, CubeInfo, Mutation


class Cubes:
    """Creates, finds and lists cubes."""

    def __init__(self, caller: Caller) -> None:
        """Is made by the client."""
        self._caller = caller

    def create(
        self,
        id: str = "",
        *,
        display_name: str = "",
        labels: Mapping[str, str] | None = None,
        embedding_model: str = "",
        embedding_dimension: int = 0,
        plaintext_profile: str = "",
        exist_ok: bool = False,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Cube:
        """Creates a cube.

        Args:
            id: The id; empty lets the server choose one.
            display_name: What the cube is called for people.
            labels: Labels.
            embedding_model: The model that embeds the memories; empty means the server's default, `none` no vectors.
            embedding_dimension: The dimension of your own model's vectors.
            plaintext_profile: `general` (flat) or `tree`.
            exist_ok: True returns the cube of that id when there is one, whatever its settings.
            request_id: A UUID; one is made when empty.
            timeout: Seconds.

        Raises:
            AlreadyExists: The id is or was in use.
        """
        settings = {
            "display_name": display_name,
            "labels": labels_of(labels),
            "embedding_model": embedding_model,
            "embedding_dimension": embedding_dimension,
            "plaintext_profile": plaintext_profile,
        }
        request = _stubs.CREATE_CUBE(cube_id=id, cube=settings, request_id=request_id)
        try:
            response = self._caller.call(_stubs.CREATE_CUBE, request, timeout)
        except AlreadyExists:
            if not exist_ok:
                raise
            return self.get(id, timeout=timeout)
        info = CubeInfo(response.cube)
        return Cube(self._caller, info.name, info)

    def get(self, name: str, *, timeout: float | None = None) -> Cube:
        """Returns a cube, by id or name, with what the server says of it in `info`.

        Raises:
            PermissionDenied: The cube does not exist, or you may not read it.
        """
        cube = Cube(self._caller, cube_name(name))
        cube.refresh(timeout=timeout)
        return cube

    def list(
        self, *, show_deleted: bool = False, page_size: int = 0, timeout: float | None = None
    ) -> Iterator[Cube]:
        """Yields the cubes that you may read, in the order of their creation.

        Args:
            show_deleted: True includes deleted and purged cubes.
            page_size: How many one call fetches; 0 lets the server choose.
            timeout: Seconds of each call.
        """
        request = _stubs.LIST_CUBES(page_size=page_size, show_deleted=show_deleted)
        for cube in self._caller.pages(_stubs.LIST_CUBES, request, "cubes", timeout):
            yield Cube(self._caller, cube.name, CubeInfo(cube))

    def update(
        self,
        name: str,
        *,
        display_name: str | Unset = UNSET,
        labels: Mapping[str, str] | Unset = UNSET,
        etag: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> Cube:
        """Changes what a cube is called or its labels; what is not given stays.

        Raises:
            Aborted: The etag is not the current one.
            UsageError: Nothing is to be changed.
        """
        cube: dict[str, Any] = {"name": cube_name(name), "etag": etag}
        paths = []
        if not isinstance(display_name, Unset):
            cube["display_name"] = display_name
            paths.append("display_name")
        if not isinstance(labels, Unset):
            cube["labels"] = labels_of(labels)
            paths.append("labels")
        if not paths:
            raise UsageError("nothing to update", reason="FIELD_REQUIRED", remedy="Pass display_name or labels.")
        request = _stubs.UPDATE_CUBE(cube=cube, update_mask={"paths": paths}, request_id=request_id)
        response = self._caller.call(_stubs.UPDATE_CUBE, request, timeout)
        return Cube(self._caller, cube["name"], CubeInfo(response.cube))

    def delete(
        self,
        name: str,
        *,
        etag: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Commit:
        """Marks a cube deleted; `undelete` restores it with everything in it.

        Raises:
            Aborted: The etag or the expected revision is not the current one.
        """
        request = _stubs.DELETE_CUBE(
            name=cube_name(name), etag=etag, expected_revision=expected_revision, request_id=request_id
        )
        response = self._caller.call(_stubs.DELETE_CUBE, request, timeout)
        return Commit(response.commit)

    def undelete(self, name: str, *, request_id: str = "", timeout: float | None = None) -> Cube:
        """Restores a deleted cube."""
        request = _stubs.UNDELETE_CUBE(name=cube_name(name), request_id=request_id)
        response = self._caller.call(_stubs.UNDELETE_CUBE, request, timeout)
        return Cube(self._caller, request.name, CubeInfo(response.cube))

    def purge(
        self,
        name: str,
        reason: str,
        *,
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Mutation:
        """Erases the content of every memory of a cube, and its settings, for good. The log stays.

        Args:
            name: The cube.
            reason: Why; it stands in the log and cannot be erased.
            expected_revision: The revision that the cube must have; 0 skips the check.
            request_id: A UUID; one is made when empty.
            timeout: Seconds.
        """
        request = _stubs.PURGE_CUBE(
            name=cube_name(name), reason=reason, expected_revision=expected_revision, request_id=request_id
        )
        response = self._caller.call(_stubs.PURGE_CUBE, request, timeout, at_least=LONG_TIMEOUT)
        commit = Commit(response.commit)
        return Mutation(commit, derived=tuple(response.derived), compaction_job=response.compaction_job)
