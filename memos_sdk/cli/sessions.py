"""`memos session …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memos_sdk.cli.context import Cli, command
from memos_sdk.cli.cubes import when
from memos_sdk.cli.parsing import CubeArgument, RequestIdOption, parse_labels

if TYPE_CHECKING:
    from memos_sdk import Session

SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id or name.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    session = typer.Typer(no_args_is_help=True, help="Begin, end and list conversations.")
    app.add_typer(session, name="session")
    for name, function in (("create", create), ("show", show), ("list", list_sessions), ("end", end)):
        command(session, name)(function)


def create(
    cli: Cli,
    cube: CubeArgument,
    display_name: Annotated[str, typer.Argument(help="What it is called for people.")] = "",
    participant: Annotated[list[str] | None, typer.Option("--participant", help="Who takes part.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label.")] = None,
    id: Annotated[str, typer.Option("--id", help="The id; without one the server chooses.")] = "",
    request_id: RequestIdOption = "",
) -> None:
    """Begin a session."""
    sessions = cli.client.cube(cube).sessions
    made = sessions.create(
        display_name, participants=participant or (), labels=parse_labels(label), id=id, request_id=request_id
    )
    cli.emit(made, lambda: cli.say(made.name))


def show(cli: Cli, cube: CubeArgument, session: SessionArgument) -> None:
    """Show a session."""
    found = cli.client.cube(cube).sessions.get(session)
    cli.emit(found, lambda: _show(cli, found))


def list_sessions(cli: Cli, cube: CubeArgument) -> None:
    """List the sessions of a cube."""
    cli.rows(
        cli.client.cube(cube).sessions.list(),
        ["SESSION", "NAME", "STATE", "BEGAN", "ENDED", "~PARTICIPANTS"],
        lambda session: [
            session.id,
            session.display_name,
            _state(session),
            when(session.create_time),
            when(session.end_time),
            ", ".join(session.participants),
        ],
        empty="no sessions",
    )


def end(cli: Cli, cube: CubeArgument, session: SessionArgument, request_id: RequestIdOption = "") -> None:
    """End a session; new memories cannot name it any more."""
    ended = cli.client.cube(cube).sessions.end(session, request_id=request_id)
    cli.emit(ended, lambda: cli.say(f"{ended.name} has ended"))


def _state(session: Session) -> str:
    return "ended" if session.end_time is not None else "open"


def _show(cli: Cli, session: Session) -> None:
    for key, value in (
        ("name", session.name),
        ("called", session.display_name),
        ("state", _state(session)),
        ("participants", ", ".join(session.participants)),
        ("labels", ", ".join(f"{key}={value}" for key, value in session.labels.items())),
        ("began", when(session.create_time)),
        ("ended", when(session.end_time)),
    ):
        if value:
            cli.say(f"{key + ':':<14}{value}")
