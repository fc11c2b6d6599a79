"""Work of blob stores on threads of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def run_in(pool: ThreadPoolExecutor | None, work: Callable[[], T]) -> T:
    """Runs work on a thread; one whose caller goes away meanwhile is waited for.

    Raises:
        RuntimeError: There is no pool: the store is not open.
    """
    if pool is None:
        raise RuntimeError("the blob store is not open")
    future = asyncio.get_running_loop().run_in_executor(pool, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        # The thread goes on: what it works on must not be let go of before it is done.
        await asyncio.wait([future])
        raise
