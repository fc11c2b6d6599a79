"""What a run needs: the engines in a folder, servers over them, clients of both sides, and an eye on all processes."""

from __future__ import annotations

import json
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from harness.servers import MemosServer

from engines.client import Clients, Job
from engines.supply import Supply
from tools.engines import Neo4jEngine, WeaviateEngine, guard

SETTLED_S = 160.0
"""For 150 seconds after a write searches ask Weaviate for all that is new and matches (docs/adr/0015), seconds."""
HEAP, PAGE_CACHE, WEAVIATE_MEMORY = "1g", "1g", "6GiB"


class Watch:
    """Samples memory, open files and connections of processes, once a second, with the phase that the run is in."""

    def __init__(self, every_s: float = 1.0) -> None:
        """Begins; processes are added as they start."""
        self.samples: list[dict[str, Any]] = []
        self.phase = ""
        self._every = every_s
        self._began = time.monotonic()
        self._processes: dict[str, psutil.Process] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, name: str, pid: int) -> None:
        """Watches a process from now on, in place of another one of the name."""
        self._processes[name] = psutil.Process(pid)

    def forget(self, name: str) -> None:
        """Ends watching a process."""
        self._processes.pop(name, None)

    def now(self, name: str) -> dict[str, float]:
        """Returns a process's resident bytes, open files, established connections and processor seconds."""
        process = self._processes[name]
        with process.oneshot():
            times = process.cpu_times()
            return {
                "rss": float(process.memory_info().rss),
                "files": float(process.num_fds()),
                "connections": float(sum(c.status == psutil.CONN_ESTABLISHED for c in process.net_connections("tcp"))),
                "cpu": times.user + times.system,
            }

    def _run(self) -> None:
        while not self._end.wait(self._every):
            row: dict[str, Any] = {"second": round(time.monotonic() - self._began, 1), "phase": self.phase}
            for name in list(self._processes):
                try:
                    row[name] = self.now(name)
                except (psutil.Error, KeyError):
                    continue
            self.samples.append(row)

    def close(self) -> None:
        """Ends it."""
        self._end.set()
        self._thread.join()


@dataclass
class Stage:
    """The parts of a run.

    Attributes:
        folder: Holds the engines' data, the servers' folders and the supply; on the disk that is measured.
        supply: What is added and asked.
        quick: True makes everything small: to see that it runs, not how fast.
        memories: Memories in the large cube.
        cubes: Cubes of the tenants' part.
        seconds: How long one turn of one side lasts.
        rounds: How many turns each side takes.
        stack: Ends what was started.
        facts: What parts learned for later ones.
        keep: Called when a fact was learned that took long to learn.
    """

    folder: Path
    supply: Supply
    quick: bool
    memories: int
    cubes: int
    seconds: float
    rounds: int
    stack: ExitStack
    watch: Watch = field(default_factory=Watch)
    facts: dict[str, Any] = field(default_factory=dict)
    keep: Callable[[], None] = lambda: None
    neo4j: Neo4jEngine = field(init=False)
    weaviate: WeaviateEngine = field(init=False)
    servers: list[MemosServer] = field(default_factory=list)
    _clients: dict[str, Clients] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Starts the engines and one server."""
        self.neo4j = Neo4jEngine(self.folder / "neo4j", heap=HEAP, page_cache=PAGE_CACHE)
        self.weaviate = WeaviateEngine(self.folder / "weaviate", memory=WEAVIATE_MEMORY)
        for engine in (self.neo4j, self.weaviate):
            engine.start(300.0)
            self.stack.callback(engine.close)
            assert engine.pid is not None
            self.watch.add(engine.name, engine.pid)
        self.stack.callback(self.watch.close)

    @property
    def where(self) -> dict[str, Any]:
        """The settings of record and index."""
        return {"record": self.neo4j.config(), "index": self.weaviate.config()}

    def server(self, number: int = 0, settings: Mapping[str, str] | None = None) -> MemosServer:
        """Returns a server over the engines, started at its first use."""
        while len(self.servers) <= number:
            name = f"server{len(self.servers)}"
            environment = {
                "MEMOS_RECORD__BACKEND": "neo4j",
                "MEMOS_RECORD__CONFIG": json.dumps(self.where["record"]),
                "MEMOS_INDEX__BACKEND": "weaviate",
                "MEMOS_INDEX__CONFIG": json.dumps(self.where["index"]),
                "MEMOS_KEYS__FOLDER": str(self.folder / "keys"),
                "MEMOS_SEARCH__INDEX_WAIT_S": "120",
                **(settings or {}),
            }
            made = MemosServer(self.folder / name, embedder=True, settings=environment, start_s=600.0)
            # A run that is killed takes its servers with it, as it does its engines.
            guard.tie(made.process.pid)
            self.stack.callback(guard.untie, made.process.pid)
            self.servers.append(made)
            self.stack.callback(made.stop)
            self.watch.add(name, made.process.pid)
        return self.servers[number]

    def restart(self, number: int = 0) -> MemosServer:
        """Stops and starts a server, the last one; its clients are forgotten."""
        self.forget("server")
        self.servers.pop(number).stop()
        return self.server(number)

    def clients(self, name: str, *, servers: int = 1, key: str = "", **more: Any) -> Clients:
        """Returns a process with clients of a side, the same one at each call.

        Args:
            name: `raw` or `server`.
            servers: How many servers the calls are spread over.
            key: Tells processes of one side apart.
            more: Further settings of the side.
        """
        full = f"{name}{servers}{key}"
        if full not in self._clients:
            if name == "raw":
                where = self.where | more
            else:
                found = [self.server(number) for number in range(servers)]
                where = {"address": ",".join(each.address for each in found), "token": found[0].token} | more
            made = Clients(name, self.folder / "supply", where)
            self.stack.callback(made.__exit__, None, None, None)
            self._clients[full] = made
        return self._clients[full]

    def forget(self, name: str) -> None:
        """Ends the client processes of a side."""
        for key in [key for key in self._clients if key.startswith(name)]:
            self._clients.pop(key).__exit__(None, None, None)

    def disk(self, engine: str) -> int:
        """Returns the bytes on disk of an engine's data as they are now; much of it may still be in logs."""
        return _bytes(self.folder / engine)

    def entries(self, engine: str) -> int:
        """Returns how many files and folders an engine's data are."""
        return sum(1 for _ in (self.folder / engine).rglob("*"))

    def stored(self) -> dict[str, int]:
        """Restarts both engines, so that all is where it stays, and returns bytes on disk by what they are for."""
        for engine in (self.neo4j, self.weaviate):
            engine.stop()
            self.watch.forget(engine.name)
        data = self.folder / "neo4j" / "data"
        sizes = {
            "neo4j store": _bytes(data / "databases" / "neo4j"),
            "neo4j logs": _bytes(data / "transactions" / "neo4j"),
            "weaviate": _bytes(self.folder / "weaviate" / "data"),
        }
        for engine in (self.neo4j, self.weaviate):
            engine.start(300.0)
            assert engine.pid is not None
            self.watch.add(engine.name, engine.pid)
        return sizes

    def loaded(self, side: str) -> None:
        """Makes the large cube of a side, unless it is there, and notes what that took."""
        if side in self.facts:
            return
        if f"{side} begun" in self.facts:
            raise RuntimeError(f"loading the {side} side was ended midway: begin again with --fresh")
        self.facts[f"{side} begun"] = True
        self.keep()
        self.watch.phase = f"load {side}"
        before = self.stored()
        clients = self.clients(side)
        if side == "raw":
            clients.run(Job("prepare"))
        clients.run(Job("make", calls=1))
        batch = min(1000, self.memories)
        cpu = {name: self.watch.now(name)["cpu"] for name in self.names()}
        memory = {name: self.watch.now(name)["rss"] for name in self.names()}
        # Two batches under way keep both engines busy, as a program that loads does.
        done = clients.run(Job("add", calls=self.memories // batch, batch=batch, clients=2, searchable=True))
        if done.errors:
            raise RuntimeError(f"loading failed: {done.errors}")
        memory = {name: self.watch.now(name)["rss"] - memory[name] for name in memory}
        cpu = {name: self.watch.now(name)["cpu"] - cpu[name] for name in cpu}
        after = self.stored()
        self.facts[side] = {
            "memories": len(done.times) * batch,
            "acknowledged_s": done.seconds,
            "searchable_s": done.seen,
            "record_s": done.record,
            "index_s": done.index,
            "disk": {what: after[what] - before[what] for what in before},
            "cpu": cpu,
            "rss": memory,
            "at": time.time(),
        }
        self.keep()

    def settle(self) -> None:
        """Waits until the large cube of the server's side was written so long ago that no search treats it as new."""
        while (left := self.facts["server"]["at"] + SETTLED_S - time.time()) > 0:
            self.watch.phase = "settling"
            print(f"\rthe cube settles for {left:.0f} s more", end="", file=sys.stderr, flush=True)
            time.sleep(min(left, 5.0))

    def names(self) -> list[str]:
        """Returns the names of the processes that are watched."""
        return ["neo4j", "weaviate", *(f"server{number}" for number in range(len(self.servers)))]


def _bytes(folder: Path) -> int:
    """Returns the bytes on disk below a folder; files may vanish meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(found.st_mode):
            total += found.st_blocks * 512
    return total
