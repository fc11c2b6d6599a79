# Generated from memos_sdk/_async/cube_base.py by tools/gen_sync_client.py.
# fmt: off
# ruff: noqa: I001, UP028, RUF100
"""What the parts of Cube share: the name, the caller and what is known of the cube."""

from __future__ import annotations

from memos_sdk import _stubs
from memos_sdk._sync.caller import Caller
from memos_sdk._core.build import NameLike, memory_name
from memos_sdk.errors import UsageError
from memos_sdk.models import CubeInfo


class CubeBase:
    """A cube's name and how to call its server."""

    def __init__(self, caller: Caller, name: str, info: CubeInfo | None = None) -> None:
        """Is made by the client."""
        self._caller = caller
        self._info = info
        self.name = name

    @property
    def id(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]

    @property
    def info(self) -> CubeInfo:
        """What the server last said of the cube; `refresh` asks again.

        Raises:
            UsageError: The handle was made without asking the server.
        """
        if self._info is None:
            raise UsageError(
                f"nothing is known of {self.name} yet",
                reason="NOT_FETCHED",
                remedy="Call cube.refresh() first, or take the cube from cubes.get().",
            )
        return self._info

    def refresh(self, *, timeout: float | None = None) -> CubeInfo:
        """Asks the server about the cube and returns what it says."""
        response = self._caller.call(_stubs.GET_CUBE, _stubs.GET_CUBE(name=self.name), timeout)
        self._info = CubeInfo(response.cube)
        return self._info

    def _names(self, memories: tuple[NameLike, ...]) -> list[str]:
        return [memory_name(self.name, memory) for memory in memories]

    def __repr__(self) -> str:
        """Shows the name."""
        return f"<{type(self).__name__} {self.name}>"
