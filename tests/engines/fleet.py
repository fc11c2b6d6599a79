"""The engines of the fault tests, which kill them and therefore have their own, and proxies that cut and slow them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.engines.cluster import PATIENCE, Backends
from tests.support.engines import need
from tools.engines import Engine, Neo4jEngine, S3Engine, Toxiproxy, WeaviateEngine

PROXIES: Final = {"neo4j": ("bolt",), "weaviate": ("http", "grpc"), "s3": ("s3",)}
"""The proxies of each engine, by the names of its ports."""


@dataclass
class Fleet:
    """One of each engine, running, and toxiproxy before them."""

    neo4j: Neo4jEngine
    weaviate: WeaviateEngine
    s3: S3Engine
    toxiproxy: Toxiproxy
    prefix: int = 0

    def engine(self, name: str) -> Engine:
        """Returns an engine by its name."""
        found: Engine = getattr(self, name)
        return found

    def whole(self) -> None:
        """Starts whatever a test left dead, and mends every proxy."""
        for name in PROXIES:
            if self.engine(name).pid is None:
                self.engine(name).start(90.0 * PATIENCE)
        self.mend()

    def backends(self, *, proxied: bool = False) -> Backends:
        """Returns the settings of servers over the engines.

        Args:
            proxied: True leads every connection through a proxy. The proxies are made anew.
        """
        record, index, blobs = self.neo4j.config(), self.weaviate.config(), self.s3.config()
        if proxied:
            ports = {}
            for name, names in PROXIES.items():
                for port in names:
                    with contextlib.suppress(Exception):
                        self.toxiproxy.remove(f"{name}-{port}")
                    ports[name, port] = self.toxiproxy.proxy(f"{name}-{port}", self.engine(name).ports[port])
            record = record | {"uri": f"bolt://127.0.0.1:{ports['neo4j', 'bolt']}"}
            index = index | {"http_port": ports["weaviate", "http"], "grpc_port": ports["weaviate", "grpc"]}
            blobs = blobs | {"endpoint": f"http://127.0.0.1:{ports['s3', 's3']}"}
        return Backends(
            {"backend": "neo4j", "config": record},
            {"backend": "weaviate", "config": index},
            {"backend": "s3", "config": blobs},
        )

    def cut(self, name: str) -> None:
        """Breaks all connections to an engine and refuses new ones."""
        for port in PROXIES[name]:
            self.toxiproxy.cut(f"{name}-{port}")

    def poison(
        self, name: str, kind: str, *, stream: str = "downstream", toxicity: float = 1.0, **attributes: int
    ) -> None:
        """Adds a toxic to all connections of an engine."""
        for port in PROXIES[name]:
            self.toxiproxy.poison(f"{name}-{port}", kind, attributes, stream=stream, toxicity=toxicity)

    def mend(self) -> None:
        """Ends cuts and toxics."""
        for name, ports in PROXIES.items():
            for port in ports:
                with contextlib.suppress(Exception):
                    self.toxiproxy.mend(f"{name}-{port}")

    def empty_weaviate(self) -> None:
        """Ends Weaviate and starts it without its data."""
        self.weaviate.kill()
        shutil.rmtree(self.weaviate.folder / "data")
        self.weaviate.start(90.0 * PATIENCE)


@contextmanager
def started(folder: Path) -> Iterator[Fleet]:
    """Starts the engines and ends them; skips the test where they are not built.

    With MEMOS_TEST_FLEET they live in that folder and run on, for the next run of the tests, which starts sooner.
    """
    need("neo4j", "weaviate", "s3", "toxiproxy")
    kept = os.environ.get("MEMOS_TEST_FLEET")
    folder = Path(kept) if kept else folder
    fleet = Fleet(
        Neo4jEngine(folder / "neo4j", tied=not kept, quick=True),
        WeaviateEngine(folder / "weaviate", tied=not kept),
        S3Engine(folder / "s3", tied=not kept),
        Toxiproxy(folder / "toxiproxy", tied=not kept),
    )
    engines = [fleet.toxiproxy, *(fleet.engine(name) for name in PROXIES)]
    try:
        for engine in engines:
            if engine.pid is None:
                engine.start(90.0 * PATIENCE)
        yield fleet
    finally:
        for engine in engines:
            if not kept:
                engine.kill()
            elif engine._process is not None:
                # It runs on, and this process has no more to do with it: Popen would warn of that.
                engine._process.returncode = 0
