"""What every command shares: the connection options, the client, and how results are printed."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from memos_sdk import Client

_PANEL = "Connection and output"

# name -> (type with the option, default of the command line itself)
_COMMON: dict[str, Any] = {
    "json_output": Annotated[
        bool | None, typer.Option("--json", help="Print JSON for programs.", rich_help_panel=_PANEL)
    ],
    "target": Annotated[
        str | None,
        typer.Option("--target", metavar="HOST:PORT", help="The server [MEMOS_TARGET].", rich_help_panel=_PANEL),
    ],
    "token": Annotated[
        str | None, typer.Option("--token", help="The bearer token [MEMOS_TOKEN].", rich_help_panel=_PANEL)
    ],
    "data": Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="The local server's folder [MEMOS_DATA].", rich_help_panel=_PANEL),
    ],
    "tls": Annotated[bool | None, typer.Option("--tls", help="Speak TLS.", rich_help_panel=_PANEL)],
    "tls_ca": Annotated[
        Path | None,
        typer.Option("--tls-ca", metavar="FILE", help="Trust this CA [MEMOS_TLS_CA].", rich_help_panel=_PANEL),
    ],
    "tls_cert": Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="Your certificate.", rich_help_panel=_PANEL)
    ],
    "tls_key": Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="Your certificate's key.", rich_help_panel=_PANEL)
    ],
    "insecure": Annotated[
        bool | None,
        typer.Option("--insecure", help="Send the token in plaintext to another machine.", rich_help_panel=_PANEL),
    ],
    "timeout": Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="The time of a call.", rich_help_panel=_PANEL)
    ],
}


@dataclasses.dataclass
class Options:
    """The options that every command and `memos` itself take; None where not given."""

    json_output: bool | None = None
    target: str | None = None
    token: str | None = None
    data: Path | None = None
    tls: bool | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool | None = None
    timeout: float | None = None

    def over(self, other: Options) -> Options:
        """Returns these options, and the other's where these are not given."""
        mine = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Options(**{key: getattr(other, key) if value is None else value for key, value in mine.items()})


# Set by the root before a command runs, so that errors know how to be printed.
current = Options()


class Cli:
    """One run of a command.

    Attributes:
        json: True when the output is for programs.
        out: The console for results.
        err: The console for progress and remarks.
    """

    def __init__(self, options: Options) -> None:
        """Keeps the options; the client is made when it is first needed."""
        self.options = options
        self.json = bool(options.json_output)
        self.out = make_console(sys.stdout)
        self.err = make_console(sys.stderr)
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client, which remembers heads from one run to the next."""
        if self._client is None:
            # Imported by the first call: help and completion need none of it.
            from memos_sdk import TLS, Client, HeadStore

            options = self.options
            tls: bool | TLS | None = options.tls
            if options.tls_ca or options.tls_cert or options.tls_key:
                tls = TLS(options.tls_ca, options.tls_cert, options.tls_key)
            self._client = Client(
                options.target,
                token=options.token,
                tls=tls,
                insecure=bool(options.insecure),
                data=options.data,
                timeout=options.timeout or 30.0,
                heads=HeadStore(heads_file()),
            )
        return self._client

    def close(self) -> None:
        """Closes the client."""
        if self._client is not None:
            self._client.close()

    def emit(self, value: Any, show: Callable[[], object]) -> None:
        """Prints a value as JSON, or lets `show` print it for people."""
        if self.json:
            print(json.dumps(plain(value), indent=2, ensure_ascii=False))
        else:
            show()

    def rows(
        self, items: Iterable[Any], columns: list[str], row: Callable[[Any], Iterable[Any]], *, empty: str
    ) -> None:
        """Prints items as a JSON array or as a table."""
        if self.json:
            print(json.dumps([plain(item) for item in items], indent=2, ensure_ascii=False))
            return
        table = make_table(columns)
        for item in items:
            table.add_row(*[cell(value) for value in row(item)])
        if table.row_count:
            self.out.print(table)
        else:
            self.note(empty)

    def say(self, *parts: str) -> None:
        """Prints a line of the result; nothing in it is taken for markup."""
        self.out.print(Text(" ".join(clean(part) for part in parts)), soft_wrap=True)

    def note(self, message: str) -> None:
        """Prints a remark beside the result."""
        self.err.print(Text(clean(message), style="dim"), soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None, unit: str = "") -> Iterator[Callable[[int], None]]:
        """Shows a progress bar on the error stream, where that is a terminal; yields what takes the count so far."""
        columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn()]
        hidden = self.json or not self.err.is_terminal
        with Progress(*columns, TextColumn(unit), TimeRemainingColumn(), console=self.err, disable=hidden) as bars:
            task = bars.add_task(what, total=total)
            yield lambda done: bars.update(task, completed=done)


def command(app: typer.Typer, name: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a command whose function takes a Cli first; the shared options are added to its own."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def run(ctx: typer.Context, **values: Any) -> None:
            given = Options(**{key: values.pop(key) for key in _COMMON})
            root = ctx.find_root().obj
            options = given.over(root if isinstance(root, Options) else Options())
            current.__dict__.update(options.__dict__)
            cli = Cli(options)
            try:
                function(cli, **values)
            finally:
                cli.close()

        parameter = inspect.Parameter
        context = parameter("ctx", parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        keyword = [item.replace(kind=parameter.KEYWORD_ONLY) for item in own]
        run.__signature__ = inspect.Signature([context, *keyword, *common_parameters()])  # type: ignore[attr-defined]
        run.__annotations__ = {
            "ctx": typer.Context,
            **{item.name: item.annotation for item in own},
            **_COMMON,
            "return": None,
        }
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        app.command(name, **settings)(run)
        return function

    return register


def common_parameters() -> list[inspect.Parameter]:
    """Returns the shared options as parameters."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, kind, default=None, annotation=hint) for name, hint in _COMMON.items()]


def common_annotations() -> dict[str, Any]:
    """Returns the annotations of the shared options."""
    return dict(_COMMON)


def plain(value: Any) -> Any:
    """Returns a value as JSON values."""
    if hasattr(value, "to_dict") and hasattr(value, "message"):
        return value.to_dict()
    if hasattr(value, "_betterproto"):
        from memos_sdk._core.json_form import to_json

        return to_json(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def clean(text: str) -> str:
    """Returns text without control characters, which could steer the reader's terminal."""
    return "".join(char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def cell(value: Any) -> Text:
    """Returns a cell of a table: one line."""
    text = clean(" ".join(value.split()) if isinstance(value, str) else str(value))
    return Text(text, no_wrap=True, overflow="ellipsis")


def make_table(columns: list[str]) -> Table:
    """Returns an empty table. A column that begins with `>` is aligned right, one with `~` is cut to the width."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        name = column.lstrip(">~")
        if column.startswith("~"):
            # Only columns that may wrap give way where the window is narrow; the cells themselves never wrap.
            table.add_column(name, no_wrap=False, overflow="ellipsis")
        else:
            table.add_column(name, no_wrap=True, justify="right" if column.startswith(">") else "left")
    return table


def make_console(file: Any) -> Console:
    """Returns a console; where the output is no terminal, lines are not cut to an unknown window's width."""
    width = None if file.isatty() or os.environ.get("COLUMNS") else 200
    return Console(file=file, highlight=False, width=width)


def heads_file() -> Path | None:
    """Returns where the command line remembers heads; None where it may not write."""
    base = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    folder = base / "memos"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / "heads.json" if os.access(folder, os.W_OK) else None
