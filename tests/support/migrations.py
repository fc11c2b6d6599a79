"""What tests of migrations share: a migration between folders, and everything that a server says of what it holds."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from memos_server.configs.settings import Settings
from memos_server.migrate import Report, migrate
from memos_server.migrate_sides import target_settings
from tests.conftest import World
from tests.support.folder_story import answers, pages
from tests.support.mip import Mip


class Silent:
    """A migration's progress that nobody looks at."""

    def __init__(self) -> None:
        """Knows of no stage yet."""
        self.stages: list[str] = []

    def stage(self, what: str, total: int | None) -> None:
        """Notes a stage."""
        assert total is None or total >= 0
        self.stages.append(what)

    def done(self, count: int) -> None:
        """Takes a step."""
        assert count >= 0


def settings_of(data: Path, **more: Any) -> Settings:
    """Returns the settings of a folder's server, which embeds nothing."""
    return Settings(data=data, **more)


async def moved(source: Path, target: Path, *, finish: bool = False, wait_index: bool = False) -> Report:
    """Migrates one folder into another, or goes on with it."""
    ours = settings_of(source)
    theirs = target_settings("sqlite+embedded", None, target, ours)
    return await migrate(ours, theirs, Silent(), finish=finish, wait_index=wait_index)


async def told_by(data: Path, *, more: bool = True, **settings: Any) -> dict[str, Any]:
    """Starts a server on a folder and returns what it says of everything.

    Args:
        data: The folder.
        more: Whether audit and jobs belong to it, which a server itself adds to.
        settings: More settings of the server.
    """
    world = World(data, **settings)
    await world.start()
    try:
        return await (everything if more else answers)(world.admin)
    finally:
        await world.stop()


async def everything(mip: Mip) -> dict[str, Any]:
    """Returns what a server says of all that it holds, as JSON values."""
    found = await answers(mip)
    found["audit"] = [
        [event.sequence, event.principal, event.method, event.resource, event.detail, event.count]
        async for event in pages(mip, "ListAuditEvents", "events", resource="server")
    ]
    for name, cube in found["cubes"].items():
        cube["jobs"] = [[job.name, job.state] async for job in pages(mip, "ListJobs", "jobs", parent=name)]
    return found


async def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command of the server's package."""
    command = [sys.executable, "-m", "memos_server", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MEMOS_")}
    environment["MEMOS_EMBEDDER__BACKEND"] = "none"
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=120, env=environment
    )
