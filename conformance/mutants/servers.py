"""A reference server in this process, with a fault or without, for as long as a block runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from mip_conformance.target import Target

from memos_server.configs.settings import Settings
from memos_server.main import serving

_START_S = 60.0
_MEMORY = Path("/dev/shm")  # noqa: S108  a file system in memory; what stands there lives as long as one mutant
SETTINGS: dict[str, Any] = {
    "embedder": {"backend": "none"},
    "embedding": {"default_model": "none"},
    # What the suite would otherwise wait for: refusals that are made by the clock.
    "watch": {"heartbeat_s": 2.0},
}


EMBEDDING: dict[str, Any] = {"embedder": {"backend": "minilm"}, "embedding": {"default_model": "all-MiniLM-L6-v2"}}
"""Settings of a server that embeds texts."""


class Patches:
    """What a fault changes in the server, undone when the mutant ends."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        """Collects changes on a stack."""
        self._stack = stack

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replaces an attribute of a module, a class or an object."""
        self._stack.enter_context(mock.patch.object(owner, name, value))

    def wrap(self, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        """Replaces a function by `wrapper(original, *arguments)`."""
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return wrapper(original, *args, **kwargs)

        self.set(owner, name, wrapped)


def _folder() -> tempfile.TemporaryDirectory[str]:
    usable = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
    return tempfile.TemporaryDirectory(prefix="mip-mutant-", dir=_MEMORY if usable else None)


@contextlib.contextmanager
def reference_server(apply: Callable[[Patches], None] | None = None, **settings: Any) -> Iterator[Target]:
    """Runs the reference server on a new folder.

    Args:
        apply: Puts a fault into it.
        settings: Sections beside SETTINGS.
    """
    with contextlib.ExitStack() as stack, _folder() as folder:
        if apply is not None:
            apply(Patches(stack))
        data = Path(folder) / "data"
        started, finished = threading.Event(), threading.Event()
        found: list[str | BaseException] = []

        async def serve() -> None:
            own = Settings(data=data, listen="127.0.0.1:0", **{**SETTINGS, **settings})
            async with serving(own) as running:
                found.append(running.address)
                started.set()
                await asyncio.to_thread(finished.wait)

        def run() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:  # it is raised by the thread that waits
                found.append(error)
            finally:
                started.set()

        thread = threading.Thread(target=run, name="reference server", daemon=True)
        thread.start()
        if not started.wait(_START_S):
            raise TimeoutError("the reference server does not start")
        if isinstance(found[0], BaseException):
            raise found[0]
        try:
            yield Target(address=str(found[0]), token=(data / "admin.token").read_text(encoding="utf-8").strip())
        finally:
            finished.set()
            thread.join(_START_S)
