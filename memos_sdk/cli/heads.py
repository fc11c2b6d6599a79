"""`memos heads …`: the newest heads of logs that this command line has seen, and how to let go of one."""

from __future__ import annotations

from typing import Annotated

import typer

from memos_sdk.cli.context import Cli, command, heads_file
from memos_sdk.cli.parsing import YesOption, confirm
from memos_sdk.errors import NotFound, UsageError

CubesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="CUBE...", help="Cubes, such as notes, or their uids as `list` shows them."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    heads = typer.Typer(no_args_is_help=True, help="Show and forget the heads of logs that were seen.")
    app.add_typer(heads, name="heads")
    command(heads, "list")(list_heads)
    command(heads, "forget")(forget)


def list_heads(cli: Cli) -> None:
    """List the newest head seen of each cube, of whichever server."""
    from memos_sdk import HeadStore

    known = sorted(HeadStore(heads_file()).known().items())
    cli.rows(
        [{"cube_uid": uid, "revision": head.revision, "digest": head.digest} for uid, head in known],
        ["CUBE UID", ">REVISION", "~DIGEST"],
        lambda head: [head["cube_uid"], head["revision"], head["digest"].hex()],
        empty="no heads",
    )


def forget(
    cli: Cli,
    cube: CubesArgument = None,
    all_: Annotated[bool, typer.Option("--all", help="Forget every head, also where the file is damaged.")] = False,
    yes: YesOption = False,
) -> None:
    """Forget heads of logs that went back on purpose, as after a backup was restored."""
    from memos_sdk import HeadStore

    if bool(cube) == all_:
        raise UsageError("nothing or too much is named", reason="INVALID_ARGUMENT", remedy="Name cubes, or give --all.")
    what = "all heads" if all_ else f"the head of {', '.join(cube or ())}"
    confirm(cli, yes, f"Forget {what}? A log that was cut or rewritten until now will not show any more.")
    path = heads_file()
    if all_:
        if path is not None:
            path.unlink(missing_ok=True)
        cli.emit({"forgotten": "all"}, lambda: cli.say("all heads are forgotten"))
        return
    store = HeadStore(path)
    # A uid needs no server; the uid of a name is the server's knowledge.
    uids = {name: name if store.get(name) else cli.client.cube(name).refresh().uid for name in cube or ()}
    for name, uid in uids.items():
        if not store.forget(uid):
            raise NotFound(
                f"no head of {name} is remembered", reason="HEAD_NOT_FOUND", remedy="See `memos heads list`."
            )
        if not cli.json:
            cli.say(f"the head of {name} is forgotten")
    if cli.json:
        cli.emit({"forgotten": sorted(uids.values())}, lambda: None)
