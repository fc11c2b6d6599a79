"""The error of anything that keeps a server from starting; shown to the operator, never sent to a caller."""

from __future__ import annotations


class SetupError(Exception):
    """The server cannot start, or a set-up command cannot do its work.

    Attributes:
        message: What is wrong, one sentence.
        remedy: What the operator can do, one sentence in the imperative.
    """

    def __init__(self, message: str, remedy: str) -> None:
        """Builds the error from what is wrong and what to do."""
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message} {remedy}")
