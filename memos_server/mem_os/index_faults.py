"""What an error of an index says: that its backend is away, which passes, or that the index itself is at fault."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable
from typing import TypeVar

from memos_server.errors import MipError

T = TypeVar("T")


class IndexFaultError(Exception):
    """An index cannot be continued: it is damaged, or does not fit the log. The cause says how."""


def is_away(error: Exception) -> bool:
    """Returns whether a backend cannot be used now, which says nothing against what its indexes hold."""
    if isinstance(error, MipError):
        return error.rule.retryable or error.reason == "STORAGE_FULL"
    if isinstance(error, sqlite3.OperationalError):
        # A failing disk and a busy file have codes of their own; the general one means a schema that is not as it was
        # made, which is damage (sqlite.org/rescode.html).
        return getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_ERROR
    return isinstance(error, OSError | MemoryError)


async def of_index(answer: Awaitable[T]) -> T:
    """Returns the answer of an index that is being brought up to its log.

    Raises:
        IndexFaultError: The index itself is at fault. Other errors pass.
    """
    try:
        return await answer
    except Exception as error:
        if is_away(error):
            raise
        raise IndexFaultError(f"{type(error).__name__}: {error}") from error
