"""`memos relate`, `unrelate`, `relations`, `traverse`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memos_sdk.cli.context import Cli, command
from memos_sdk.cli.parsing import AsOfOption, CauseOption, CubeArgument, RequestIdOption

if TYPE_CHECKING:
    from memos_sdk import Traversal

TypeOption = Annotated[str, typer.Option("--type", help="PARENT_OF, RELATES_TO, DERIVED_FROM, or a word of your own.")]
TypesOption = Annotated[list[str] | None, typer.Option("--type", help="Only this type; may be repeated.")]
SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="The memory that the relation leaves.")]
TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", help="The memory that it enters.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for name, function in (
        ("relate", relate),
        ("unrelate", unrelate),
        ("relations", relations),
        ("traverse", traverse),
    ):
        command(app, name)(function)


def relate(
    cli: Cli,
    cube: CubeArgument,
    source: SourceArgument,
    entered: TargetArgument,
    type: TypeOption = "RELATES_TO",
    weight: Annotated[float, typer.Option("--weight", help="The weight, above 0.")] = 1.0,
    cause: CauseOption = "",
    request_id: RequestIdOption = "",
) -> None:
    """Relate a memory to another."""
    done = cli.client.cube(cube).relate(source, entered, type, weight=weight, cause=cause, request_id=request_id)
    cli.emit(done, lambda: cli.say(f"{source} {type} {entered} (revision {done.commit.revision})"))


def unrelate(
    cli: Cli,
    cube: CubeArgument,
    source: SourceArgument,
    entered: TargetArgument,
    type: TypeOption = "RELATES_TO",
    cause: CauseOption = "",
    request_id: RequestIdOption = "",
) -> None:
    """Delete a relation."""
    done = cli.client.cube(cube).unrelate(source, entered, type, cause=cause, request_id=request_id)
    cli.emit(done, lambda: cli.say(f"{source} no longer {type} {entered} (revision {done.commit.revision})"))


def relations(
    cli: Cli,
    cube: CubeArgument,
    memory: Annotated[str | None, typer.Argument(metavar="MEMORY", help="Only its relations.")] = None,
    direction: Annotated[str, typer.Option("--direction", help="outgoing, incoming or both.")] = "both",
    type: TypesOption = None,
    as_of: AsOfOption = None,
) -> None:
    """List the relations of a cube or of a memory."""
    found = cli.client.cube(cube).relations(memory, direction=direction, types=type or (), as_of=as_of)
    cli.rows(
        found,
        ["SOURCE", "TYPE", "TARGET", ">WEIGHT", ">REVISION"],
        lambda edge: [_id(edge.source), edge.type, _id(edge.target), f"{edge.weight:g}", edge.revision],
        empty="no relations",
    )


def traverse(
    cli: Cli,
    cube: CubeArgument,
    start: Annotated[list[str], typer.Argument(metavar="MEMORY...", help="The memories to start from.")],
    depth: Annotated[int, typer.Option("--depth", help="The most steps.", min=1, max=16)] = 1,
    direction: Annotated[str, typer.Option("--direction", help="outgoing, incoming or both.")] = "outgoing",
    type: TypesOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="The most memories.", min=1, max=1000)] = 100,
    as_of: AsOfOption = None,
) -> None:
    """Walk from memories along relations, and show what is reached."""
    found = cli.client.cube(cube).traverse(
        *start, types=type or (), direction=direction, max_depth=depth, limit=limit, as_of=as_of
    )
    cli.emit(found, lambda: _show(cli, found))


def _show(cli: Cli, found: Traversal) -> None:
    for visit, memory in zip(found, found.memories, strict=True):
        via = f"{visit.via.type} " if visit.via is not None else ""
        text = " ".join(memory.text.split())
        cli.say(("  " * visit.depth + f"{via}{memory.id}  {text}").rstrip())
    if found.truncated:
        cli.note("there is more; raise --limit")


def _id(name: str) -> str:
    return name.rpartition("/")[2]
