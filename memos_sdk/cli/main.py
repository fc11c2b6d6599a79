"""The entry point `memos`: puts the commands together and turns errors into a line, a remedy and an exit status.

Exit status: 0 done; 1 any other error; 2 wrong usage or a refused argument; 3 not found; 4 no permission; 5 the state
does not permit it, or somebody was faster; 6 the server cannot be reached or has no time; 7 damaged or rewritten data;
130 interrupted.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    import typer

    from memos_sdk.errors import MipError


def run() -> int:
    """Runs the command line and returns the exit status."""
    try:
        import rich  # noqa: F401
        import typer
    except ImportError:
        print('error: the command line needs more: pip install "memos-mip[cli]"', file=sys.stderr)
        return 1
    from memos_sdk.errors import MipError

    try:
        build()()
    except MipError as error:
        return report(error)
    except typer.TyperException as error:
        # Never raised in standalone mode by Typer itself; a command may raise its own.
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except BrokenPipeError:
        # The reader went away, such as `head`; what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the last resort: a person gets a line, not a trace
        if os.environ.get("MEMOS_DEBUG"):
            raise
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        print("remedy: this is a fault of memos; set MEMOS_DEBUG=1 for the trace and report it", file=sys.stderr)
        return 1
    return 0


def build() -> typer.Typer:
    """Returns the whole command line."""
    import typer

    from memos_sdk._version import __version__
    from memos_sdk.cli import access, blobs, commands, cubes, demo, graph, heads, jobs, memories, sessions, top
    from memos_sdk.cli.context import Options, common_annotations, common_parameters

    app = typer.Typer(
        name="memos",
        help="Remember, search, update, roll back: the client of MIP, the Memory Interchange Protocol.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            typer.echo(f"memos {__version__}")
            raise typer.Exit

    def root(ctx: typer.Context, version: bool = False, **values: object) -> None:
        ctx.obj = Options(**values)  # type: ignore[arg-type]

    version = Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    asked = inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=version)
    root.__signature__ = inspect.Signature([context, asked, *common_parameters()])  # type: ignore[attr-defined]
    root.__annotations__ = {"ctx": typer.Context, "version": version, **common_annotations(), "return": None}
    app.callback()(root)
    for part in (memories, cubes, graph, sessions, blobs, access, jobs, heads, top, demo):
        part.register(app)
    commands.register(app)
    return app


_STATUS = {
    "INVALID_ARGUMENT": 2,
    "OUT_OF_RANGE": 2,
    "NOT_FOUND": 3,
    "PERMISSION_DENIED": 4,
    "UNAUTHENTICATED": 4,
    "ABORTED": 5,
    "FAILED_PRECONDITION": 5,
    "ALREADY_EXISTS": 5,
    "UNAVAILABLE": 6,
    "DEADLINE_EXCEEDED": 6,
    "RESOURCE_EXHAUSTED": 6,
    "DATA_LOSS": 7,
    "CANCELLED": 130,
}


def report(error: MipError) -> int:
    """Prints an error to the error stream and returns its exit status."""
    from memos_sdk.cli.context import clean, current
    from memos_sdk.cli.remedies import remedy_of

    remedy = remedy_of(error)
    if current.json_output:
        shown = {
            "code": error.code,
            "reason": error.reason,
            "message": error.message,
            "remedy": remedy,
            "metadata": error.metadata,
            "violations": [violation._asdict() for violation in error.violations],
        }
        print(json.dumps({"error": shown}, ensure_ascii=False), file=sys.stderr)
    else:
        print(f"error: {clean(str(error))}", file=sys.stderr)
        for key, value in sorted(error.metadata.items()):
            # What the message says already is not said again.
            if key != "detail" and not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", error.message):
                print(f"  {clean(key)}: {clean(value)}", file=sys.stderr)
        if remedy:
            print(f"remedy: {clean(remedy)}", file=sys.stderr)
    return _STATUS.get(error.code, 1)


if __name__ == "__main__":
    sys.exit(run())
