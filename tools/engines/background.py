"""The engines of a server in the background: found again by their folder, and stopped by another command.

A folder holds one engine each in `neo4j`, `weaviate` and `s3`, the settings of a server over them in `memos.toml`, and
the server's own data in `server`. Secrets lie in files of their own, which the settings name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tools.engines import build
from tools.engines.neo4j_engine import Neo4jEngine
from tools.engines.process import Engine, EngineError
from tools.engines.s3_engine import S3Engine
from tools.engines.weaviate_engine import WeaviateEngine

RUN: Final = build.HOME / "run"
"""The folder of `make engines`."""

SECTIONS: Final = {"neo4j": "record", "weaviate": "index", "s3": "blobs"}
"""The engines of a server, and which section of its settings each belongs to."""

_MARK: Final = "engines.json"


def chosen(text: str) -> tuple[str, ...]:
    """Returns the engines of a text such as `neo4j+weaviate`.

    Raises:
        EngineError: It names none, or another.
    """
    names = tuple(dict.fromkeys(text.replace(",", "+").split("+")))
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise EngineError(f"no engine is called {unknown[0]!r}; choose of {'+'.join(SECTIONS)}")
    return names


def engines(folder: Path, names: Sequence[str] = tuple(SECTIONS), *, tied: bool = False) -> list[Engine]:
    """Returns the engines of a folder, running or not."""
    # What lives as long as a short command is started quickly rather than fast.
    made: dict[str, Callable[[Path], Engine]] = {
        "neo4j": lambda home: Neo4jEngine(home, tied=tied, quick=tied),
        "weaviate": lambda home: WeaviateEngine(home, tied=tied),
        "s3": lambda home: S3Engine(home, tied=tied),
    }
    return [made[name](folder / name) for name in names]


def start(folder: Path, names: Sequence[str], *, tied: bool = False, tell: Callable[[str], None] = print) -> Path:
    """Starts engines that do not run yet, and writes the settings of a server over them.

    Args:
        folder: Made where it is missing.
        names: Which ones.
        tied: Whether they end with this process.
        tell: Gets a line for each.

    Returns:
        The file of the settings.

    Raises:
        NotBuilt: One is not made.
        EngineError: One did not start; those that this call started are stopped.
    """
    build.require(*names)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / _MARK).write_text(json.dumps(list(names)) + "\n", encoding="utf-8")
    found = engines(folder, names, tied=tied)
    idle = [engine for engine in found if engine.pid is None]
    tell(f"starting {', '.join(engine.name for engine in idle)}" if idle else "all of them run already")
    try:
        with ThreadPoolExecutor(len(SECTIONS)) as pool:
            list(pool.map(lambda engine: engine.start(), idle))
    except EngineError:
        for engine in idle:
            engine.kill()
        raise
    for engine in found:
        tell(shown(engine))
    settings = folder / "memos.toml"
    settings.write_text(toml(folder, found), encoding="utf-8")
    return settings


def stop(folder: Path, *, keep: bool, tell: Callable[[str], None] = print) -> None:
    """Stops the engines of a folder.

    Args:
        folder: As `start` was given it.
        keep: False removes the folder with all data.
        tell: Gets a line for each.

    Raises:
        EngineError: The folder is none of engines, or one of them did not end in order, and was killed.
    """
    if not (folder / _MARK).exists():
        # What is about to be removed must be what was made here.
        raise EngineError(f"{folder} is no folder of engines; nothing is stopped")
    for engine in engines(folder):
        if engine.pid is not None:
            engine.stop()
            tell(f"{engine.name}: stopped")
    if keep:
        tell(f"the data stay in {folder}")
    else:
        shutil.rmtree(folder)
        tell(f"{folder} is removed")


def shown(engine: Engine) -> str:
    """Returns a line about an engine for people."""
    if engine.pid is None:
        return f"{engine.name}: not running"
    ports = ", ".join(f"{name} {port}" for name, port in engine.ports.items() if name in ("bolt", "http", "grpc", "s3"))
    return f"{engine.name}: running, process {engine.pid}, 127.0.0.1: {ports}"


def toml(folder: Path, found: Sequence[Engine]) -> str:
    """Returns the settings of a server over running engines."""
    lines = ["# Written when the engines were started; the secrets lie in the files that it names."]
    lines.append(f"data = {_value(str(folder / 'server'))}")
    for engine in found:
        lines += ["", f"[{SECTIONS[engine.name]}]", f"backend = {_value(engine.name)}"]
        lines += ["", f"[{SECTIONS[engine.name]}.config]"]
        lines += [f"{key} = {_value(value)}" for key, value in engine.config(files=True).items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """A JSON string, number or boolean is TOML, except that JSON leaves DEL as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
