"""Real engines for tests, each started by the first test that asks for it, once in a test process, and ended with it.

A suite gives its tests a clean store; the engines run on between them, since a start takes seconds. Tests that kill or
configure an engine make one of their own: `tools.engines.Neo4jEngine(tmp_path / "neo4j")`.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tools.engines import Engine, Neo4jEngine, NotBuilt, S3Engine, Toxiproxy, WeaviateEngine
from tools.engines.build import require

E = TypeVar("E", bound=Engine)

_started: dict[str, Engine] = {}
_lock = threading.Lock()
_numbers = itertools.count()


def need(*names: str) -> None:
    """Skips the test when an engine has not been built; fails it where MEMOS_REQUIRE_TOOLS=1 says that it must be."""
    try:
        require(*names)
    except NotBuilt as error:
        if os.environ.get("MEMOS_REQUIRE_TOOLS") == "1":
            raise
        pytest.skip(f"not run: {error}")


def neo4j() -> Neo4jEngine:
    """Returns this process's Neo4j, running."""
    return _running("neo4j", Neo4jEngine)


def weaviate() -> WeaviateEngine:
    """Returns this process's Weaviate, running."""
    return _running("weaviate", WeaviateEngine)


def s3() -> S3Engine:
    """Returns this process's S3 store, running."""
    return _running("s3", S3Engine)


def toxiproxy() -> Toxiproxy:
    """Returns this process's toxiproxy, running."""
    return _running("toxiproxy", Toxiproxy)


def clean_neo4j() -> dict[str, Any]:
    """Empties Neo4j, by batches, and returns the settings of a record in it. Constraints and indexes stay."""
    from neo4j import GraphDatabase

    engine = neo4j()
    auth = ("neo4j", engine.password)
    with GraphDatabase.driver(engine.uri, auth=auth) as driver, driver.session(database="neo4j") as session:
        # A transaction for each thousand, so that a large store fits into the memory of any.
        session.run("MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 1000 ROWS").consume()
    return engine.config()


def clean_weaviate(prefix: str | None = None) -> dict[str, Any]:
    """Deletes the collections of a prefix, by default a new one, and returns the settings of an index with it."""
    import weaviate as client_library
    from weaviate.classes.init import Auth

    engine = weaviate()
    chosen = prefix or f"Test{next(_numbers)}x"
    with client_library.connect_to_local(
        host="127.0.0.1",
        port=engine.ports["http"],
        grpc_port=engine.ports["grpc"],
        auth_credentials=Auth.api_key(engine.api_key),
    ) as client:
        for name in client.collections.list_all():
            if name.startswith(chosen):
                client.collections.delete(name)
    return engine.config() | {"prefix": chosen}


def clean_s3() -> dict[str, Any]:
    """Makes a bucket and returns the settings of a blob store in it."""
    engine = s3()
    bucket = f"test-{next(_numbers)}-{os.getpid()}"
    client = engine.client()
    try:
        client.create_bucket(Bucket=bucket)
    finally:
        client.close()
    return engine.config() | {"bucket": bucket}


def settings(backends: str) -> dict[str, dict[str, Any]]:
    """Returns the sections of a server over clean engines.

    Args:
        backends: Record, index and blob store, such as `neo4j+weaviate+s3` or `sqlite+weaviate+filesystem`.
    """
    record, index, blobs = backends.split("+")
    clean: dict[str, Callable[[], dict[str, Any]]] = {"neo4j": clean_neo4j, "weaviate": clean_weaviate, "s3": clean_s3}
    chosen = {"record": record, "index": index, "blobs": blobs}
    return {part: {"backend": name, "config": clean.get(name, dict)()} for part, name in chosen.items()}


def toml(backends: str) -> str:
    """Returns the settings of `settings` as a file's text."""
    lines = []
    for part, section in settings(backends).items():
        lines += [f"[{part}]", f"backend = {json.dumps(section['backend'])}", f"[{part}.config]"]
        # What JSON writes of a text, a number or a truth value is TOML too.
        lines += [f"{key} = {json.dumps(value)}" for key, value in section["config"].items()]
    return "\n".join(lines) + "\n"


def _running(name: str, make: Callable[[Path], E]) -> E:
    need(name)
    with _lock:
        engine = _started.get(name)
        if engine is None:
            if not _started:
                atexit.register(_stop_all, _root())
            engine = make(_root() / name)
            _started[name] = engine
        # A test may have stopped it.
        if engine.pid is None:
            engine.start()
        return engine  # type: ignore[return-value]


_folder: Path | None = None


def _root() -> Path:
    global _folder
    if _folder is None:
        _folder = Path(tempfile.mkdtemp(prefix="memos-engines-"))
    return _folder


def _stop_all(folder: Path) -> None:
    # What they hold is of no use any more: a graceful end would only take time.
    for engine in _started.values():
        engine.kill()
    shutil.rmtree(folder, ignore_errors=True)
