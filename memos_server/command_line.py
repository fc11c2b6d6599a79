"""What the server's commands share: their settings, and how errors are shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import typer
from rich.console import Console
from rich.markup import escape

from memos_server.configs.errors import SetupError

if TYPE_CHECKING:
    from memos_server.configs.settings import Settings

P = ParamSpec("P")

err = Console(stderr=True, highlight=False)


def explained(function: Callable[P, None]) -> Callable[P, None]:
    """Turns the errors of a command into a line, a remedy and exit status 1; never a traceback."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from memos_server.errors import MipError

        try:
            function(*args, **kwargs)
        except SetupError as error:
            err.print("[red]error:[/red]", escape(error.message), soft_wrap=True)
            err.print("[bold]remedy:[/bold]", escape(error.remedy), soft_wrap=True)
            raise typer.Exit(1) from error
        except MipError as error:
            err.print(f"[red]error {error.reason}:[/red]", escape(error.message), soft_wrap=True)
            err.print("[bold]remedy:[/bold]", escape(error.remedy), soft_wrap=True)
            raise typer.Exit(1) from error

    return run


def settings_of(ctx: typer.Context, data: Path | None, config: Path | None, **flags: Any) -> Settings:
    """Returns the settings; `memos --data DIR serve` means what `memos serve --data DIR` does."""
    from memos_server.configs.settings import load

    return load({"data": data or getattr(ctx.find_root().obj, "data", None), **flags}, config)


def wants_json(ctx: typer.Context, given: bool) -> bool:
    """Returns whether --json stands after the command or before it."""
    return given or bool(getattr(ctx.find_root().obj, "json_output", None))
