"""`memos index`: how far the search indexes are, and making them anew."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from memos_server.command_line import err, explained, settings_of, wants_json
from memos_server.configs.errors import SetupError

if TYPE_CHECKING:
    from memos_server.index_upkeep import Indexed

_DATA = typer.Option("--data", help="The data folder. Default: $MEMOS_DATA, else ~/.local/share/memos.")
_CONFIG = typer.Option("--config", help="A settings file instead of memos.toml in the data folder.")
_JSON = typer.Option("--json", help="Print JSON.")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    index = typer.Typer(help="Compare search indexes with the record and make them anew.", no_args_is_help=True)
    index.command("status")(status)
    index.command("rebuild")(rebuild)
    app.add_typer(index, name="index")


@explained
def status(
    ctx: typer.Context,
    cubes: Annotated[list[str] | None, typer.Argument(help="Cubes; none means all.")] = None,
    data: Annotated[Path | None, _DATA] = None,
    config: Annotated[Path | None, _CONFIG] = None,
    json_: Annotated[bool, _JSON] = False,
) -> None:
    """Tell how many commits each cube's index is behind. Beside running servers where record and index are engines."""
    from memos_server import index_upkeep, logs

    settings = settings_of(ctx, data, config)
    logs.set_up("error", "text")

    async def look() -> list[Indexed]:
        async with index_upkeep.opened(settings) as upkeep:
            return await index_upkeep.status(upkeep, _names(cubes))

    found = asyncio.run(look())
    if wants_json(ctx, json_):
        print(json.dumps([each._asdict() for each in found], indent=2))
        return
    console = Console(highlight=False)
    for each in found:
        behind = each.revision - each.indexed
        told = "level" if not behind else f"{behind} commits behind" if behind > 0 else f"{-behind} commits ahead"
        console.print(f"{each.cube}: revision {each.revision}, index at {each.indexed}, {told}", soft_wrap=True)


@explained
def rebuild(
    ctx: typer.Context,
    cubes: Annotated[list[str] | None, typer.Argument(help="Cubes, such as `notes`.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All cubes.")] = False,
    data: Annotated[Path | None, _DATA] = None,
    config: Annotated[Path | None, _CONFIG] = None,
    json_: Annotated[bool, _JSON] = False,
) -> None:
    """Make search indexes anew from the record. Beside running servers where record and index are engines."""
    from memos_server import index_upkeep, logs

    if bool(cubes) == all_:
        raise SetupError("Which cubes is not said.", "Name cubes, or give --all.")
    settings = settings_of(ctx, data, config)
    logs.set_up("error", "text")
    machine = wants_json(ctx, json_)

    def done(each: Indexed) -> None:
        if not machine and each.problem:
            err.print(f"[red]{each.cube}: index at {each.indexed} of {each.revision}:[/red] {each.problem}")
        elif not machine:
            print(f"{each.cube}: index made anew at revision {each.indexed}", flush=True)

    async def work() -> list[Indexed]:
        async with index_upkeep.opened(settings) as upkeep:
            return await index_upkeep.rebuild(upkeep, _names(cubes), done)

    found = asyncio.run(work())
    if machine:
        print(json.dumps([each._asdict() for each in found], indent=2))
    if any(each.problem for each in found):
        raise typer.Exit(1)


def _names(cubes: list[str] | None) -> list[str]:
    return [cube if cube.startswith("cubes/") else f"cubes/{cube}" for cube in cubes or ()]
