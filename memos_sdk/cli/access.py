"""`memos principal`, `token`, `grant`, `audit`: who may do what, and who did."""

from __future__ import annotations

import datetime
import re
from typing import Annotated

import typer

from memos_sdk._core.discovery import default_data_folder, read_local_token
from memos_sdk.cli.context import Cli, command
from memos_sdk.cli.cubes import take, when
from memos_sdk.cli.parsing import RequestIdOption
from memos_sdk.errors import NotFound, UsageError

PrincipalArgument = Annotated[str, typer.Argument(metavar="PRINCIPAL", help="Such as alice or principals/alice.")]
ResourceArgument = Annotated[str, typer.Argument(metavar="RESOURCE", help="`server`, a cube or a memory's name.")]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for group, help_text, commands in (
        (
            "principal",
            "Create, list and disable principals.",
            (("create", create_principal), ("list", list_principals), ("disable", disable_principal)),
        ),
        (
            "token",
            "Show the local token; issue and revoke tokens.",
            (("show", show_token), ("issue", issue_token), ("revoke", revoke_token)),
        ),
        (
            "grant",
            "Set, list and delete grants.",
            (("set", set_grant), ("list", list_grants), ("delete", delete_grant)),
        ),
    ):
        part = typer.Typer(no_args_is_help=True, help=help_text)
        app.add_typer(part, name=group)
        for name, function in commands:
            command(part, name)(function)
    command(app, "audit")(audit)


def create_principal(
    cli: Cli,
    id: Annotated[str, typer.Argument(help="The id; without one the server chooses.")] = "",
    display_name: Annotated[str, typer.Option("--display-name", help="What it is called for people.")] = "",
    request_id: RequestIdOption = "",
) -> None:
    """Create a principal: a person, an agent, a device. It has no grant yet."""
    made = cli.client.access.create_principal(id, display_name=display_name, request_id=request_id)
    cli.emit(made, lambda: cli.say(made.name))


def list_principals(cli: Cli) -> None:
    """List the principals."""
    cli.rows(
        cli.client.access.principals(),
        ["PRINCIPAL", "NAME", "CREATED", "DISABLED"],
        lambda item: [
            item.name.removeprefix("principals/"),
            item.display_name,
            when(item.create_time),
            when(item.disable_time),
        ],
        empty="no principals",
    )


def disable_principal(cli: Cli, principal: PrincipalArgument, request_id: RequestIdOption = "") -> None:
    """Refuse all tokens of a principal from now on, for good."""
    done = cli.client.access.disable_principal(principal, request_id=request_id)
    cli.emit(done, lambda: cli.say(f"{done.name} is disabled"))


def show_token(cli: Cli) -> None:
    """Print the local administrator's token from the data folder, and nothing else."""
    folder = cli.options.data or default_data_folder()
    token = read_local_token(folder.expanduser())
    if token is None:
        raise NotFound(
            f"there is no admin.token in {folder}",
            reason="TOKEN_NOT_FOUND",
            remedy="Start the server once (`memos serve`), or name its folder with --data.",
        )
    cli.emit({"token": token}, lambda: print(token))


def issue_token(
    cli: Cli,
    principal: PrincipalArgument,
    ttl: Annotated[str | None, typer.Option("--ttl", help="How long it holds, such as 90d, 12h; else 30 days.")] = None,
) -> None:
    """Issue a token for a principal. It is shown once; only the token is on the standard output."""
    made = cli.client.access.issue_token(principal, ttl=_duration(ttl))

    def people() -> None:
        print(made.token)
        cli.note(f"token id {made.token_id}, expires {when(made.expire_time)} UTC")

    cli.emit(made, people)


def revoke_token(
    cli: Cli,
    token_id: Annotated[str, typer.Argument(metavar="TOKEN_ID", help="The id that `issue` showed.")],
    request_id: RequestIdOption = "",
) -> None:
    """Refuse a token from now on."""
    at = cli.client.access.revoke_token(token_id, request_id=request_id)
    cli.emit({"token_id": token_id, "revoke_time": when(at)}, lambda: cli.say(f"{token_id} is revoked"))


def set_grant(
    cli: Cli,
    principal: PrincipalArgument,
    resource: ResourceArgument,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="reader, writer, admin, or on server creator.")],
    max_sensitivity: Annotated[
        str | None, typer.Option("--max-sensitivity", help="public, internal (the default), confidential or secret.")
    ] = None,
    request_id: RequestIdOption = "",
) -> None:
    """Give a principal a role on a resource, or replace the one it has."""
    made = cli.client.access.grant(principal, resource, role, max_sensitivity=max_sensitivity, request_id=request_id)
    shown = f"{made.principal} is {made.role.name.lower()} on {made.resource}"
    cli.emit(made, lambda: cli.say(f"{shown} up to {made.max_sensitivity.name.lower()}"))


def list_grants(cli: Cli, resource: ResourceArgument = "server") -> None:
    """List the grants on a resource; on a cube, also those on its memories."""
    cli.rows(
        cli.client.access.grants(resource),
        ["PRINCIPAL", "RESOURCE", "ROLE", "UP TO", "SET"],
        lambda grant: [
            grant.principal.removeprefix("principals/"),
            grant.resource,
            grant.role.name.lower(),
            grant.max_sensitivity.name.lower(),
            when(grant.update_time),
        ],
        empty="no grants",
    )


def delete_grant(
    cli: Cli, principal: PrincipalArgument, resource: ResourceArgument, request_id: RequestIdOption = ""
) -> None:
    """Take a principal's grant on a resource away."""
    cli.client.access.revoke_grant(principal, resource, request_id=request_id)
    cli.emit({"principal": principal, "resource": resource}, lambda: cli.say(f"{principal} has no grant on {resource}"))


def audit(
    cli: Cli,
    resource: Annotated[str, typer.Argument(metavar="RESOURCE", help="`server` for all events, or a cube.")] = "server",
    limit: Annotated[int, typer.Option("--limit", "-n", help="The most events; 0 for all.", min=0)] = 50,
) -> None:
    """Show who did what, newest first."""
    events = cli.client.access.audit(resource, page_size=min(limit, 1000))
    cli.rows(
        take(events, limit),
        ["WHEN", "WHO", "CALL", "RESOURCE", "OUTCOME", "~DETAIL"],
        lambda event: [
            when(event.time),
            event.principal.removeprefix("principals/") or "(nobody)",
            event.method.rpartition("/")[2],
            event.resource,
            event.outcome,
            event.detail + (f" ({event.count} times)" if event.count > 1 else ""),
        ],
        empty="no events",
    )


def _duration(text: str | None) -> datetime.timedelta | None:
    """Returns the duration that `90d`, `12h`, `30m` or `45s` stands for."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if match is None:
        raise UsageError(
            f"{text!r} is not a duration", reason="INVALID_FIELD", remedy="Write it as 90d, 12h, 30m or 45s."
        )
    return datetime.timedelta(seconds=int(match[1]) * _UNITS[match[2]])
