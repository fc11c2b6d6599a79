"""Fixtures of all tests: a real server in this process, and callers of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from memos_server.configs.settings import Settings
from memos_server.main import Running, serving
from tests.support.mip import Grant, Mip

_FOR_TESTS = ("MEMOS_TEST_", "MEMOS_REQUIRE_TOOLS", "MEMOS_FOREIGN_CLIENTS")


@pytest.fixture(autouse=True)
def _no_settings_of_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps a developer's own server and settings out of the tests; what is said to the tests themselves stays."""
    for name in [name for name in os.environ if name.startswith("MEMOS_") and not name.startswith(_FOR_TESTS)]:
        monkeypatch.delenv(name)


class World:
    """A data folder with a server on it, which can be stopped and started again."""

    def __init__(self, data: Path, **settings: Any) -> None:
        """Uses a folder; without further settings the server runs no embedding model."""
        self.data = data
        self.settings: dict[str, Any] = {"embedder": {"backend": "none"}, "embedding": {"default_model": "none"}}
        self.settings.update(settings)
        self.running: Running | None = None
        self._stack = AsyncExitStack()
        self._clients: list[Mip] = []

    async def start(self) -> None:
        """Starts the server."""
        settings = Settings(data=self.data, listen="127.0.0.1:0", **self.settings)
        self.running = await self._stack.enter_async_context(serving(settings))

    async def stop(self) -> None:
        """Stops the server and closes its callers' connections."""
        for client in self._clients:
            await client.close()
        self._clients.clear()
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        self.running = None

    async def restart(self) -> None:
        """Stops the server and starts it again."""
        await self.stop()
        await self.start()

    @property
    def server(self) -> Running:
        """The running server."""
        assert self.running is not None
        return self.running

    def caller(self, token: str) -> Mip:
        """Returns a caller with a token."""
        client = Mip(self.server.address, token)
        self._clients.append(client)
        return client

    @property
    def admin(self) -> Mip:
        """A caller as the local administrator."""
        return self.caller((self.data / "admin.token").read_text().strip())

    async def principal(self, principal_id: str, *grants: tuple[str, int, int]) -> Mip:
        """Makes a principal with grants (resource, role, sensitivity) and returns a caller as it."""
        admin = self.admin
        await admin.CreatePrincipal(principal_id=principal_id)
        for resource, role, level in grants:
            grant = Grant(principal=f"principals/{principal_id}", resource=resource, role=role, max_sensitivity=level)
            await admin.SetGrant(grant=grant)
        issued = await admin.IssueToken(principal=f"principals/{principal_id}")
        return self.caller(issued.token)


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Makes servers, each on a folder of its own, and stops them at the end."""
    worlds: list[World] = []

    async def make(**settings: Any) -> World:
        world = World(tmp_path / f"data{len(worlds)}", **settings)
        worlds.append(world)
        await world.start()
        return world

    yield make
    for world in worlds:
        await world.stop()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    """A server without an embedding model."""
    return await make_world()


@pytest.fixture
async def mip(world: World) -> Mip:
    """The local administrator of a fresh server."""
    return world.admin
