"""The history of a cube: its log, rollback, fork, watch, verification."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from memos_sdk import _stubs
from memos_sdk._async.caller import LONG_TIMEOUT
from memos_sdk._async.cube_base import AsyncCubeBase
from memos_sdk._async.transport import sleep
from memos_sdk._core.heads import Head
from memos_sdk._core.watching import WatchAssembler
from memos_sdk.errors import MipError
from memos_sdk.models import Change, Commit, CubeInfo, Rollback, Verification, WatchEvent

if TYPE_CHECKING:
    from memos_sdk._async.cube import AsyncCube


class AsyncCubeHistory(AsyncCubeBase):
    """Reads and rewinds a cube's history."""

    async def log(self, *, page_size: int = 0, timeout: float | None = None) -> AsyncIterator[Commit]:
        """Yields the commits, newest first.

        Args:
            page_size: How many one call fetches; 0 lets the server choose.
            timeout: Seconds of each call.
        """
        request = _stubs.LIST_COMMITS(parent=self.name, page_size=page_size)
        async for commit in self._caller.pages(_stubs.LIST_COMMITS, request, "commits", timeout):
            yield Commit(commit)

    async def commit(self, revision: int, *, timeout: float | None = None) -> Commit:
        """Returns the commit of a revision."""
        request = _stubs.GET_COMMIT(name=f"{self.name}/commits/{revision}")
        response = await self._caller.call(_stubs.GET_COMMIT, request, timeout)
        return Commit(response.commit)

    async def changes(
        self, revision: int, *, page_size: int = 0, timeout: float | None = None
    ) -> AsyncIterator[Change]:
        """Yields the changes of a commit, in order."""
        request = _stubs.LIST_COMMIT_CHANGES(parent=f"{self.name}/commits/{revision}", page_size=page_size)
        async for change in self._caller.pages(_stubs.LIST_COMMIT_CHANGES, request, "changes", timeout):
            yield Change(change)

    async def rollback(
        self,
        to_revision: int,
        *,
        cause: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Rollback:
        """Brings memories, relations and settings back to what they were at a revision, as one new commit.

        Updates, merges, transitions and deletions since are undone; what was added since becomes deleted. Purged
        content stays purged.

        Args:
            to_revision: The revision to return to.
            cause: Why; it stands in the log.
            expected_revision: The revision that the cube must have; 0 skips the check.
            request_id: A UUID that makes repeating safe; one is made when empty.
            timeout: Seconds.
        """
        request = _stubs.ROLLBACK_CUBE(
            name=self.name,
            to_revision=to_revision,
            expected_revision=expected_revision,
            cause=cause,
            request_id=request_id,
        )
        response = await self._caller.call(_stubs.ROLLBACK_CUBE, request, timeout, at_least=LONG_TIMEOUT)
        self._info = CubeInfo(response.cube)
        return Rollback(
            Commit(response.commit),
            self._info,
            {skipped.name: skipped.purge_revision for skipped in response.skipped_purges},
            response.index_pending,
        )

    async def fork(
        self,
        id: str = "",
        *,
        revision: int = 0,
        display_name: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> AsyncCube:
        """Makes a new cube from a revision of this one.

        Args:
            id: The new cube's id; empty lets the server choose one.
            revision: The revision to copy; 0 means the current one.
            display_name: What the new cube is called; empty keeps this one's.
            request_id: A UUID that makes repeating safe; one is made when empty.
            timeout: Seconds.
        """
        from memos_sdk._async.cube import AsyncCube

        request = _stubs.FORK_CUBE(
            name=self.name, cube_id=id, revision=revision, display_name=display_name, request_id=request_id
        )
        response = await self._caller.call(_stubs.FORK_CUBE, request, timeout, at_least=LONG_TIMEOUT)
        info = CubeInfo(response.cube)
        return AsyncCube(self._caller, info.name, info)

    async def watch(self, start_revision: int = 0) -> AsyncIterator[WatchEvent]:
        """Yields every commit from a revision on, in order and without gaps, and goes on with new ones as they come.

        It never ends by itself. A broken connection is mended and the watch goes on after the last whole commit; an
        error that stays is raised.

        Args:
            start_revision: The first revision to send; 0 means the next one to be made.
        """
        assembler = WatchAssembler(self.name, start_revision)
        attempts = self._caller.attempts(_stubs.WATCH_CUBE, math.inf)
        while True:
            attempts.next_timeout()
            try:
                async for frame in self._caller.stream(_stubs.WATCH_CUBE, assembler.request(), None):
                    # The stream lives, so a later failure has its tries before it again.
                    attempts = self._caller.attempts(_stubs.WATCH_CUBE, math.inf)
                    event = assembler.take(frame)
                    if event is not None:
                        yield event
            except MipError as error:
                delay = attempts.delay_after(assembler.judge(error))
                if delay is None:
                    raise
                await sleep(delay)

    async def verify(
        self,
        *,
        expected: Head | tuple[int, bytes] | None = None,
        use_known_head: bool = True,
        timeout: float | None = None,
    ) -> Verification:
        """Lets the server recompute the chain of commits and replay it against what is stored and indexed.

        The newest head that this client has seen is sent along, so that a cut or rewritten log shows too. The result
        is true when nothing was found.

        Args:
            expected: A head that you remember: revision and digest.
            use_known_head: False does not send the client's own newest head.
            timeout: Seconds.
        """
        head = None if expected is None else Head(*expected)
        if head is None and use_known_head:
            info = await self.refresh(timeout=timeout)
            head = self._caller.heads.get(info.uid)
        request = _stubs.VERIFY_CUBE(name=self.name)
        if head is not None:
            request.expected_revision, request.expected_head_digest = head
        response = await self._caller.call(_stubs.VERIFY_CUBE, request, timeout, at_least=LONG_TIMEOUT)
        return Verification(response)
