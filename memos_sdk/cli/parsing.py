"""Arguments that several commands take, and reading them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from memos_sdk.cli.context import Cli
from memos_sdk.errors import Cancelled, UsageError

CubeArgument = Annotated[str, typer.Argument(metavar="CUBE", help="The cube, such as notes or cubes/notes.")]
MemoryArgument = Annotated[str, typer.Argument(metavar="MEMORY", help="The memory's id or name.")]
MemoriesArgument = Annotated[list[str], typer.Argument(metavar="MEMORY...", help="The memories' ids or names.")]
CauseOption = Annotated[str, typer.Option("--cause", help="Why; it stands in the log.")]
RequestIdOption = Annotated[
    str,
    typer.Option(
        "--request-id", metavar="UUID", help="Makes repeating safe: the same id never changes anything twice."
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsOfOption = Annotated[int | None, typer.Option("--as-of", metavar="REVISION", help="As of this revision.", min=1)]


def parse_labels(values: list[str] | None) -> dict[str, str]:
    """Returns labels of `KEY=VALUE` options.

    Raises:
        UsageError: A value has no `=`.
    """
    labels = {}
    for value in values or []:
        key, separator, item = value.partition("=")
        if not separator or not key:
            raise UsageError(f"{value!r} is not a label", reason="INVALID_FIELD", remedy="Write it as KEY=VALUE.")
        labels[key] = item
    return labels


def parse_object(text: str | None, option: str) -> dict[str, Any] | None:
    """Returns the JSON object of an option.

    Raises:
        UsageError: It is not a JSON object.
    """
    if text is None:
        return None
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{option} is not JSON: {error}", reason="INVALID_JSON", remedy=f"""Write it as {option} '{{"key": 1}}'."""
        ) from None
    if not isinstance(parsed, dict):
        raise UsageError(
            f"{option} is not a JSON object", reason="INVALID_JSON", remedy=f"""Write it as {option} '{{"key": 1}}'."""
        )
    return parsed


def confirm(cli: Cli, yes: bool, question: str) -> None:
    """Asks before something that cannot be undone.

    Raises:
        UsageError: Nobody is there to be asked.
        Cancelled: The answer is no.
    """
    if yes:
        return
    if cli.json or not cli.err.is_terminal:
        raise UsageError("this cannot be undone", reason="CONFIRMATION_REQUIRED", remedy="Add --yes to confirm.")
    if not typer.confirm(question, err=True):
        raise Cancelled("nothing was erased", reason="NOT_CONFIRMED", remedy="Answer y to go on.")
