"""Where the server's own processor time goes: a server in this process, over a run's engines, while clients work.

    python benches/engines/profile_server.py FOLDER --what search|add [--batch N] [--clients N] [--calls N]

FOLDER is that of a run of bench.py that was kept (`--keep`). Times are of the thread of the event loop, so they do not
grow with what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(ROOT), str(ROOT / "benches"), *(place for place in sys.path if Path(place or ".").resolve() != HERE)]

from engines.client import Clients, Done, Job  # noqa: E402
from engines.stage import HEAP, PAGE_CACHE, WEAVIATE_MEMORY  # noqa: E402
from tools.engines import Neo4jEngine, WeaviateEngine  # noqa: E402


async def _profiled(folder: Path, options: argparse.Namespace, where: dict[str, dict[str, object]]) -> None:
    from memos_server.configs.settings import Settings
    from memos_server.main import serving

    settings = Settings(
        data=folder / "server0",
        listen="127.0.0.1:0",
        record={"backend": "neo4j", "config": where["record"]},
        index={"backend": "weaviate", "config": where["index"]},
        keys={"folder": folder / "keys"},
        search={"index_wait_s": 120},
    )  # fmt: skip
    async with serving(settings) as running:
        token = (folder / "server0" / "admin.token").read_text().strip()
        with Clients("server", folder / "supply", {"address": running.address, "token": token}) as clients:
            cube = options.cube

            async def run(job: Job) -> Done:
                return await asyncio.to_thread(clients.run, job)

            await run(Job("make", cubes=(cube,), calls=1))
            await run(_job(options, options.calls))
            trips: dict[str, list[float]] = {}
            _count(trips)
            profile = cProfile.Profile(time.thread_time)
            began, wall = time.thread_time(), time.perf_counter()
            profile.enable()
            done = await run(_job(options, options.calls))
            profile.disable()
            spent, wall = time.thread_time() - began, time.perf_counter() - wall
    print(f"{options.what}: {spent / options.calls * 1e3:.2f} ms of the event loop a call, {wall:.1f} s, {done.errors}")
    for name, times in sorted(trips.items(), key=lambda item: -sum(item[1])):
        each = len(times) / options.calls
        print(f"{each:8.2f} a call, {sum(times) / len(times) * 1e3:8.2f} ms each  {name}")
    for order in ("tottime", "cumulative"):
        pstats.Stats(profile).strip_dirs().sort_stats(order).print_stats(options.lines)


def _count(trips: dict[str, list[float]]) -> None:
    """Notes each round trip to an engine: what, and how long it took."""
    from memos_server.graph_dbs.neo4j import statements
    from memos_server.vec_dbs.weaviate.connection import Connection

    def timed(kind: type, method: str, label: Callable[..., str]) -> None:
        plain = getattr(kind, method)

        async def wrapped(self: Any, *args: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return await plain(self, *args, **named)
            finally:
                trips.setdefault(label(*args, **named), []).append(time.perf_counter() - began)

        setattr(kind, method, wrapped)

    def statement(query: str, **_: Any) -> str:
        return "neo4j: " + " ".join(query.split())[:110]

    def asked(call: Any, **_: Any) -> str:
        return f"weaviate: {call.__qualname__}"

    timed(statements.ReadStatements, "rows", statement)
    timed(statements.TransactionStatements, "rows", statement)
    timed(Connection, "ask", asked)


def _job(options: argparse.Namespace, calls: int) -> Job:
    return Job(
        options.what,
        cubes=(options.cube,),
        clients=options.clients,
        calls=calls,
        batch=options.batch,
        kind=options.kind,
        searchable=True,
    )


def main() -> None:
    """Starts the engines, and profiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--what", default="search")
    parser.add_argument("--kind", default="hybrid")
    parser.add_argument("--cube", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--lines", type=int, default=40)
    options = parser.parse_args()
    with ExitStack() as stack:
        neo4j = Neo4jEngine(options.folder / "neo4j", heap=HEAP, page_cache=PAGE_CACHE)
        weaviate = WeaviateEngine(options.folder / "weaviate", memory=WEAVIATE_MEMORY)
        for engine in (neo4j, weaviate):
            engine.start(300.0)
            stack.callback(engine.close)
        asyncio.run(_profiled(options.folder, options, {"record": neo4j.config(), "index": weaviate.config()}))


if __name__ == "__main__":
    main()
