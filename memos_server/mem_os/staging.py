"""How much the server holds in memory for streams whose effect is not stored yet."""

from __future__ import annotations

from types import TracebackType

from memos_server.errors import MipError

_RETRY_S = 2.0


class Staging:
    """The bytes that all running bulk additions together have sent and not committed."""

    def __init__(self, limit: int) -> None:
        """Sets aside at most `limit` bytes."""
        self._limit = limit
        self._taken = 0

    def share(self) -> StagingShare:
        """Returns what one stream takes; leaving it as a context manager gives everything back."""
        return StagingShare(self)

    def _take(self, size: int) -> None:
        if self._taken + size > self._limit:
            raise MipError(
                "QUOTA_EXCEEDED",
                "other bulk additions take up what the server sets aside for memories that are not stored yet",
                metadata={"quota": "staged_bytes", "limit": str(self._limit)},
                retry_after_s=_RETRY_S,
            )
        self._taken += size

    def _give_back(self, size: int) -> None:
        self._taken -= size


class StagingShare:
    """The part of one stream.

    Attributes:
        taken: Its bytes.
    """

    def __init__(self, staging: Staging) -> None:
        """Starts with nothing."""
        self._staging = staging
        self.taken = 0

    def take(self, size: int) -> None:
        """Sets more bytes aside.

        Raises:
            MipError: QUOTA_EXCEEDED when the server sets no more aside now.
        """
        self._staging._take(size)
        self.taken += size

    def __enter__(self) -> StagingShare:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives everything back."""
        self._staging._give_back(self.taken)
        self.taken = 0
