"""`python -m tools.engines build|start|stop|status|run`: the engines of tests, for people and for make."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.engines import background, build
from tools.engines.process import EngineError

_ALL = "+".join(background.SECTIONS)


def main(arguments: list[str]) -> int:
    """Runs a command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.engines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("build", help="make engines from the Go and Maven registries, once")
    making.add_argument("engines", nargs="*", choices=[[], *build.ENGINES], default=[])
    starting = commands.add_parser("start", help="start engines in the background")
    starting.add_argument("engines", nargs="?", default=_ALL, help=f"such as {_ALL}, which is the default")
    stopping = commands.add_parser("stop", help="stop the engines in the background")
    stopping.add_argument("--keep", action="store_true", help="leave their data, as always in a folder of your own")
    telling = commands.add_parser("status", help="tell what is made and what runs")
    for each in (starting, stopping, telling):
        each.add_argument("--folder", type=Path, default=background.RUN, help="where their data lie")
    running = commands.add_parser("run", help="run a command beside engines that live as long as it does")
    running.add_argument("engines", help=f"such as {_ALL}")
    running.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        help="-- and the command; {config} in it is the settings of a server over them",
    )
    chosen = parser.parse_args(arguments)
    try:
        match chosen.command:
            case "build":
                build.build(tuple(chosen.engines) or build.ENGINES, _tell)
            case "start":
                _start(chosen.folder.resolve(), chosen.engines)
            case "stop":
                folder = chosen.folder.resolve()
                background.stop(folder, keep=chosen.keep or folder != background.RUN.resolve(), tell=_tell)
            case "status":
                return _status(chosen.folder.resolve())
            case "run":
                words = chosen.words[1:] if chosen.words[:1] == ["--"] else chosen.words
                if not words:
                    running.error("which command?")
                return _run(background.chosen(chosen.engines), words)
    except (EngineError, build.NotBuilt) as error:
        print(f"engines: {error}", file=sys.stderr)
        return 1
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


def _start(folder: Path, names: str) -> None:
    settings = background.start(folder, background.chosen(names), tell=_tell)
    _tell(f"\n{settings.read_text(encoding='utf-8')}")
    _tell(f"These settings stand in {settings}; a server over the engines:")
    _tell(f"  memos serve --config {settings}")


def _status(folder: Path) -> int:
    for name in build.ENGINES:
        _tell(f"{name}: {'built' if build.built(name) else 'not built'}")
    found = background.engines(folder)
    for engine in found:
        _tell(background.shown(engine))
    return 0 if all(engine.pid for engine in found) else 3


def _run(names: tuple[str, ...], words: list[str]) -> int:
    build.build(names, _tell)
    with tempfile.TemporaryDirectory(prefix="memos-engines-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        try:
            settings = background.start(folder, names, tied=True, tell=_tell)
            command = [word.replace("{config}", str(settings)) for word in words]
            return subprocess.run(command, env=dict(os.environ), check=False).returncode
        finally:
            # Their data go with the folder: nothing is gained by a graceful end.
            for engine in background.engines(folder, names):
                engine.kill()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
