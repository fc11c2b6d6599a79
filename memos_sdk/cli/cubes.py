"""`memos cube …`: cubes and their history; `memos watch`, `memos capabilities`."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from memos_sdk._core.text_form import dumps, time_text
from memos_sdk._core.unset import UNSET
from memos_sdk.cli.context import Cli, command, plain
from memos_sdk.cli.parsing import CubeArgument, RequestIdOption, YesOption, confirm, parse_labels
from memos_sdk.errors import UsageError

if TYPE_CHECKING:
    from memos_sdk import Commit, Cube, CubeInfo, Mutation, WatchEvent

T = TypeVar("T")
Revision = Annotated[int, typer.Argument(help="A revision of the cube's log.", min=1)]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    cube = typer.Typer(no_args_is_help=True, help="Create, inspect, roll back, fork and verify cubes.")
    app.add_typer(cube, name="cube")
    for name, function in (
        ("create", create),
        ("list", list_cubes),
        ("show", show),
        ("update", update),
        ("log", log),
        ("changes", changes),
        ("rollback", rollback),
        ("fork", fork),
        ("verify", verify),
        ("delete", delete),
        ("undelete", undelete),
        ("purge", purge),
    ):
        command(cube, name)(function)
    command(app, "watch")(watch)
    command(app, "capabilities")(capabilities)


def create(
    cli: Cli,
    id: Annotated[str, typer.Argument(help="The id; without one the server chooses.")] = "",
    display_name: Annotated[str, typer.Option("--display-name", help="What it is called for people.")] = "",
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label.")] = None,
    model: Annotated[str, typer.Option("--model", help="The embedding model; `none` for no vectors.")] = "",
    dimension: Annotated[int, typer.Option("--dimension", help="The dimension of your own model.", min=0)] = 0,
    profile: Annotated[str, typer.Option("--profile", help="`general` (flat) or `tree`.")] = "",
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="Succeed when the cube is there already.")] = False,
    request_id: RequestIdOption = "",
) -> None:
    """Create a cube."""
    cube = cli.client.cubes.create(
        id,
        display_name=display_name,
        labels=parse_labels(label),
        embedding_model=model,
        embedding_dimension=dimension,
        plaintext_profile=profile,
        exist_ok=exist_ok,
        request_id=request_id,
    )
    cli.emit(cube.info, lambda: cli.say(f"{cube.name} at revision {cube.info.revision}"))


def list_cubes(
    cli: Cli, deleted: Annotated[bool, typer.Option("--deleted", help="Include deleted and purged cubes.")] = False
) -> None:
    """List the cubes that you may read."""
    cubes = (cube.info for cube in cli.client.cubes.list(show_deleted=deleted))
    columns = ["CUBE", "~NAME", ">REVISION", "STATE", "MODEL", "CHANGED"]
    cli.rows(
        cubes,
        columns,
        lambda info: [
            info.name.removeprefix("cubes/"),
            info.display_name,
            info.revision,
            info.state.name.lower(),
            info.embedding_model,
            when(info.update_time),
        ],
        empty="no cubes yet; `memos cube create notes` makes one",
    )


def show(cli: Cli, cube: CubeArgument) -> None:
    """Show a cube."""
    _show(cli, cli.client.cubes.get(cube).info)


def update(
    cli: Cli,
    cube: CubeArgument,
    display_name: Annotated[str | None, typer.Option("--display-name", help="What it is called for people.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; all of them are replaced.")
    ] = None,
    etag: Annotated[str, typer.Option("--etag", help="Refuse when the cube has another etag.")] = "",
    request_id: RequestIdOption = "",
) -> None:
    """Change what a cube is called, or its labels."""
    changed = cli.client.cubes.update(
        cube,
        display_name=UNSET if display_name is None else display_name,
        labels=UNSET if label is None else parse_labels(label),
        etag=etag,
        request_id=request_id,
    )
    _show(cli, changed.info)


def log(
    cli: Cli,
    cube: CubeArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", help="The most commits; 0 for all.", min=0)] = 20,
) -> None:
    """Show the log, newest first."""
    commits = take(cli.client.cube(cube).log(page_size=min(limit, 1000)), limit)
    cli.rows(
        commits,
        [">REVISION", "WHEN", "WHO", ">CHANGES", "DIGEST", "~WHY"],
        lambda commit: [
            commit.revision,
            when(commit.create_time),
            commit.principal.removeprefix("principals/"),
            commit.change_count,
            commit.digest.hex()[:12],
            commit.cause,
        ],
        empty="no commits",
    )


def changes(cli: Cli, cube: CubeArgument, revision: Revision) -> None:
    """Show what a commit changed."""
    cli.rows(
        cli.client.cube(cube).changes(revision),
        ["CHANGE", "ITEM", "BEFORE", "AFTER", "~COMMITMENT"],
        lambda change: [
            change.kind.name.lower(),
            change.name or "(the cube)",
            change.message.before_state.name.lower().replace("unspecified", "-"),
            change.message.after_state.name.lower().replace("unspecified", "-"),
            change.message.after_commitment.hex()[:12],
        ],
        empty="no changes that you may see",
    )


def rollback(
    cli: Cli,
    cube: CubeArgument,
    revision: Revision,
    cause: Annotated[str, typer.Option("--cause", help="Why; it stands in the log.")] = "",
    expected: Annotated[int, typer.Option("--expected-revision", help="Refuse at another revision.", min=0)] = 0,
    request_id: RequestIdOption = "",
) -> None:
    """Bring a cube back to what it was at a revision, as a new commit."""
    done = cli.client.cube(cube).rollback(revision, cause=cause, expected_revision=expected, request_id=request_id)

    def people() -> None:
        cli.say(f"{done.cube.name} is as it was at revision {revision}; this is revision {done.commit.revision}")
        for name, at in done.skipped_purges.items():
            cli.note(f"{name} stays purged (revision {at})")

    cli.emit(done, people)


def fork(
    cli: Cli,
    cube: CubeArgument,
    id: Annotated[str, typer.Argument(help="The new cube's id; without one the server chooses.")] = "",
    revision: Annotated[int, typer.Option("--revision", help="The revision to copy; 0 for the current.", min=0)] = 0,
    display_name: Annotated[str, typer.Option("--display-name", help="What it is called for people.")] = "",
    request_id: RequestIdOption = "",
) -> None:
    """Make a new cube from a revision of another."""
    made = cli.client.cube(cube).fork(id, revision=revision, display_name=display_name, request_id=request_id)
    cli.emit(made.info, lambda: cli.say(f"{made.name} at revision {made.info.revision}, forked from {cube}"))


def verify(
    cli: Cli,
    cube: CubeArgument,
    expected_revision: Annotated[int, typer.Option("--expected-revision", help="A revision you remember.")] = 0,
    expected_digest: Annotated[str, typer.Option("--expected-digest", help="Its digest, hexadecimal.")] = "",
) -> None:
    """Recompute the log's chain and replay it against what is stored and indexed. Status 7 when something is wrong."""
    expected = None
    if expected_revision or expected_digest:
        try:
            expected = (expected_revision, bytes.fromhex(expected_digest))
        except ValueError:
            raise UsageError(
                "--expected-digest is not hexadecimal", reason="INVALID_FIELD", remedy="Copy it from the log."
            ) from None
    verdict = cli.client.cube(cube).verify(expected=expected)

    def people() -> None:
        state = "verified" if verdict.valid else "DOES NOT VERIFY"
        head = f"head {verdict.head_revision} {verdict.head_digest.hex()}"
        cli.say(f"{cube}: {state}, {verdict.commits_checked} commits, {head}")
        for finding in verdict.findings:
            cli.say(f"  {finding.kind}: {finding.resource} (revision {finding.revision}): {finding.message}")

    cli.emit(verdict, people)
    if not verdict.valid:
        raise typer.Exit(7)


def delete(
    cli: Cli,
    cube: CubeArgument,
    etag: Annotated[str, typer.Option("--etag", help="Refuse at another etag.")] = "",
    request_id: RequestIdOption = "",
) -> None:
    """Mark a cube deleted; `memos cube undelete` restores it."""
    commit: Commit = cli.client.cubes.delete(cube, etag=etag, request_id=request_id)
    cli.emit(commit, lambda: cli.say(f"{cube} is deleted; `memos cube undelete {cube}` restores it"))


def undelete(cli: Cli, cube: CubeArgument, request_id: RequestIdOption = "") -> None:
    """Restore a deleted cube."""
    restored: Cube = cli.client.cubes.undelete(cube, request_id=request_id)
    cli.emit(restored.info, lambda: cli.say(f"{restored.name} is restored"))


def purge(
    cli: Cli,
    cube: CubeArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the log for good.")],
    yes: YesOption = False,
    request_id: RequestIdOption = "",
) -> None:
    """Erase a cube's content for good."""
    confirm(cli, yes, f"Erase the content of {cube} for good?")
    done = cli.client.cubes.purge(cube, reason, request_id=request_id)
    cli.emit(done, lambda: show_purge(cli, done, cube))


def watch(
    cli: Cli,
    cube: CubeArgument,
    start: Annotated[int, typer.Option("--from", help="The first revision; 0 for the next one.", min=0)] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", help="End after so many commits; 0 for never.", min=0)] = 0,
) -> None:
    """Show commits as they are made, until interrupted. With --json one object a line."""
    if not cli.json:
        cli.note(f"watching {cube}; Ctrl-C ends")
    for event in take(cli.client.cube(cube).watch(start), limit):
        if cli.json:
            print(dumps(plain(event)), flush=True)
        else:
            _show_event(cli, event)


def capabilities(cli: Cli) -> None:
    """Show what the server declares."""
    found = cli.client.capabilities()

    def people() -> None:
        server = f"{found.server_name} {found.server_version} at {cli.client.target}"
        cli.say(f"{server}, MIP {found.protocol_version}")
        cli.say("services:", ", ".join(name.removeprefix("mip.v1.") for name in found.message.services))
        cli.say("levels:", ", ".join(found.levels) or "none")
        cli.say("features:", ", ".join(found.features) or "none")
        for model in found.embedding_models:
            state = model.runtime or "available" if model.available else "not available"
            cli.say(f"embedding model: {model.name}, {model.dimension} dimensions, {state}")
        for notice in found.notices:
            cli.say("notice:", notice)

    cli.emit(found, people)


def take(items: Iterator[T], limit: int) -> Iterator[T]:
    """Yields at most `limit` items; 0 sets no limit."""
    for count, item in enumerate(items, 1):
        yield item
        if limit and count >= limit:
            return


def when(value: object) -> str:
    """Returns a time to the second."""
    return time_text(value)[:19].replace("T", " ") if isinstance(value, datetime.datetime) else ""


def show_purge(cli: Cli, done: Mutation, what: str) -> None:
    """Tells what a purge erased and what stays."""
    cli.say(f"{what} is erased for good (revision {done.commit.revision})")
    for name in done.derived:
        cli.note(f"derives from it and stays: {name}")
    if done.compaction_job:
        cli.note(f"{done.compaction_job} erases the bytes on disk")
    cli.note("backups made before still hold it: make a new one and delete the older ones")


def _show(cli: Cli, info: CubeInfo) -> None:
    def people() -> None:
        for key, value in (
            ("name", info.name),
            ("uid", info.uid),
            ("display name", info.display_name),
            ("state", info.state.name.lower()),
            ("revision", str(info.revision)),
            ("head", info.head_digest.hex()),
            ("owner", info.owner),
            ("model", info.embedding_model),
            ("labels", ", ".join(f"{key}={value}" for key, value in info.labels.items())),
            ("created", when(info.create_time)),
            ("changed", when(info.update_time)),
            ("etag", info.etag),
        ):
            if value:
                cli.say(f"{key + ':':<14}{value}")

    cli.emit(info, people)


def _show_event(cli: Cli, event: WatchEvent) -> None:
    commit = event.commit
    cli.say(f"{commit.revision:>6}  {when(commit.create_time)}  {commit.principal}  {commit.cause}".rstrip())
    for change in event.changes:
        cli.say(f"        {change.kind.name.lower()} {change.name}".rstrip())
