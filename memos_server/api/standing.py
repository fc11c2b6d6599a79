"""Whether the caller of an open stream may go on: asked again when access changes, and when its time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from google.protobuf.message import Message

from memos_server import names
from memos_server.api.accounts import Accounts, require_unexpired
from memos_server.api.resources import Rule
from memos_server.errors import MipError
from memos_server.mem_os.access import require, view_of
from memos_server.mem_os.context import Call
from memos_server.mem_os.watching import AccessChanges

T = TypeVar("T")


class Standing:
    """The right of one stream's caller. Close it when the stream ends."""

    def __init__(
        self, accounts: Accounts, changes: AccessChanges, rule: Rule, call: Call, request: Message, seen: int
    ) -> None:
        """Begins to watch.

        Args:
            accounts: Says what the caller may do now.
            changes: Tells of changes to principals, tokens and grants.
            rule: What the RPC needs.
            call: The call, as it was admitted.
            request: The request, or the first of its frames, which names the resources.
            seen: The generation of `changes` from before the call was authenticated, so that no change is missed.
        """
        self._accounts = accounts
        self._changes = changes
        self._rule = rule
        self._call = call
        self._request = request
        self._disturbed = asyncio.ensure_future(self._wait(seen))

    def close(self) -> None:
        """Ends the watch."""
        self._disturbed.cancel()

    async def during(self, awaitable: Awaitable[T]) -> T:
        """Returns what is awaited; cancels it at once when the caller loses its right meanwhile.

        Raises:
            MipError: TOKEN_REVOKED, TOKEN_EXPIRED; PERMISSION_DENIED, also when the caller sees other things now.
        """
        upcoming = asyncio.ensure_future(awaitable)
        try:
            while not upcoming.done():
                await asyncio.wait({upcoming, self._disturbed}, return_when=asyncio.FIRST_COMPLETED)
                if self._disturbed.done():
                    self._disturbed = asyncio.ensure_future(self._wait(self._changes.generation))
                    await self._check()
            return upcoming.result()
        finally:
            if not upcoming.done():
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)

    async def _wait(self, seen: int) -> None:
        try:
            async with asyncio.timeout(max(self._call.expiry - time.time(), 0.0)):
                await self._changes.wait(seen)
        except TimeoutError:
            return

    async def _check(self) -> None:
        require_unexpired(self._call.expiry)
        access = await self._accounts.access(self._call.principal, self._call.credentials)
        resources = self._rule.resolve(self._request)
        require(access, self._rule.permission, resources)
        cubes = {names.cube_of(resource) for resource in resources}
        if any(view_of(access, cube) != view_of(self._call.access, cube) for cube in cubes):
            # What the caller sees has changed in the middle of a stream: it begins anew with what it sees now.
            raise MipError("PERMISSION_DENIED", "the caller's grants changed; open the stream again")
