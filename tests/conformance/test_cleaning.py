"""What the suite leaves on a server that it was run against: nothing."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from mip_conformance.cases import checks_in, data_folder
from mip_conformance.target import Target

from tests.conformance.fake_servers import run
from tests.conftest import World

FILES = ("core/request-ids.yaml", "access/tokens.yaml")


async def _made(world: World) -> tuple[list[Any], list[Any]]:
    """Returns the cubes of the suite that are listed, and its principals."""
    admin = world.admin
    cubes = await admin.ListCubes(page_size=1000)
    people = await admin.ListPrincipals(page_size=1000)
    return (
        [cube for cube in cubes.cubes if cube.name.startswith("cubes/mipconf-")],
        [one for one in people.principals if one.name.startswith("principals/mipconf-")],
    )


async def _run(world: World, tmp_path: Path, *, keep: bool) -> Any:
    cases = tmp_path / "cases"
    for file in FILES:
        (cases / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data_folder() / "cases" / file, cases / file)
    target = Target(world.server.address, (world.data / "admin.token").read_text(encoding="utf-8").strip())
    checks = checks_in(cases)
    assert len(checks) > 20
    return await asyncio.to_thread(run, target, checks, of=("core", "access"), keep=keep, whole=False)


async def test_a_run_erases_its_cubes_and_disables_its_principals(world: World, tmp_path: Path) -> None:
    found = await _run(world, tmp_path, keep=False)
    assert [(result.check.name, result.message) for result in found.results if result.outcome == "failed"] == []
    assert found.cleaning == []
    cubes, people = await _made(world)
    assert [cube.name for cube in cubes] == []
    assert people
    assert [one.name for one in people if not one.HasField("disable_time")] == []


async def test_a_run_leaves_them_where_it_is_asked_to(world: World, tmp_path: Path) -> None:
    await _run(world, tmp_path, keep=True)
    cubes, people = await _made(world)
    assert cubes != []
    assert [one for one in people if not one.HasField("disable_time")] != []
