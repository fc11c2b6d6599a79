"""The log of a real server against a model of it: random histories, and every revision compared."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from memos_server._pb.mip.v1.memory_service_pb2 import SEARCH_MODE_LEXICAL
from tests.conftest import World
from tests.support.log_model import ACTIVE, ARCHIVED, DELETED, PARENT_OF, CubeModel, RefusedError
from tests.support.mip import Mip, Relation, RpcError, text

WORDS = st.sampled_from(["tea", "coffee", "the weather in Oslo", "zwei Äpfel", "猫が好き", "a\nb"])
TYPES = st.sampled_from(["RELATES_TO", PARENT_OF])
WEIGHTS = st.sampled_from([0.5, 1.0, 2.0])
MOST_CUBES = 3
IDS = [f"m{number}" for number in range(12)]


class Driver:
    """Runs calls of one server from synchronous rules."""

    def __init__(self, world: World, runner: asyncio.Runner) -> None:
        """Uses a server that runs in the runner's loop."""
        self.world, self._runner = world, runner
        self.mip = world.admin
        self.cubes = count()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine to its end."""
        return self._runner.run(coroutine)

    def restart(self) -> None:
        """Stops the server and starts it again on its folder."""
        self.run(self.world.restart())
        self.mip = self.world.admin


@contextmanager
def driver(folder: Path) -> Iterator[Driver]:
    """Starts a server of its own."""
    world = World(folder)
    with asyncio.Runner() as runner:
        runner.run(world.start())
        try:
            yield Driver(world, runner)
        finally:
            runner.run(world.stop())


class LogMachine(RuleBasedStateMachine):
    """Does the same to a few cubes of a server and to their models."""

    def __init__(self, driver: Driver) -> None:
        """Uses a server that other examples use too, with cubes of its own."""
        super().__init__()
        self.driver = driver
        self.cubes: list[CubeModel] = []

    # Ways to choose

    def choose_cube(self, data: st.DataObject) -> CubeModel:
        """Draws a cube."""
        return data.draw(st.sampled_from(self.cubes), label="cube") if len(self.cubes) > 1 else self.cubes[0]

    def choose_ids(self, data: st.DataObject, cube: CubeModel, least: int = 1, most: int = 3) -> list[str]:
        """Draws different memories of a cube; mostly ACTIVE ones, so that most calls do something."""
        pool = [id_ for id_, item in cube.now.items.items() if item.state == ACTIVE]
        if len(pool) < least or data.draw(st.integers(0, 3), label="any state") == 0:
            pool = list(cube.now.items)
        return data.draw(st.lists(st.sampled_from(pool), min_size=least, max_size=most, unique=True), label="ids")

    def choose_revision(self, data: st.DataObject, cube: CubeModel) -> int:
        """Draws a revision of a cube, the one before the head as often as all others."""
        return data.draw(st.just(max(1, cube.revision - 1)) | st.integers(1, cube.revision), label="revision")

    # Ways to call

    def both(self, cube: CubeModel, model: Callable[[], Any], rpc: str, /, **fields: Any) -> tuple[Any, Any]:
        """Does a call and what it means in the model; both succeed or the call is refused for the model's reason."""
        before = cube.revision
        try:
            expected = model()
        except RefusedError as refused:
            reason = str(refused)
            assert cube.revision == before
            with pytest.raises(RpcError) as raised:
                self.call(rpc, **fields)
            assert raised.value.reason == reason
            return None, None
        got = self.call(rpc, **fields)
        assert got.commit.revision == cube.revision == before + 1
        assert got.commit.change_count == cube.changes
        return expected, got

    def call(self, rpc: str, **fields: Any) -> Any:
        """Makes a call."""
        mip: Mip = self.driver.mip
        return self.driver.run(mip.call(rpc, **fields))

    # What is done

    @initialize()
    def create(self) -> None:
        """Makes the first cube, with a few memories and a tree of two."""
        cube_id = f"c{next(self.driver.cubes)}"
        assert self.call("CreateCube", cube_id=cube_id).commit.revision == 1
        cube = CubeModel(f"cubes/{cube_id}")
        self.cubes.append(cube)
        cube.add({id_: f"common {id_}" for id_ in IDS[:3]})
        memories = [text(f"common {id_}", name=f"{cube.name}/memories/{id_}") for id_ in IDS[:3]]
        self.call("AddMemories", parent=cube.name, memories=memories)
        cube.relate({("m0", "m1", PARENT_OF): 1.0})
        self.call("CreateRelations", parent=cube.name, relations=[self.edge(cube, "m0", "m1", PARENT_OF)])

    @rule(data=st.data(), words=st.lists(WORDS, min_size=1, max_size=3), repeated=st.booleans())
    def add(self, data: st.DataObject, words: list[str], repeated: bool) -> None:
        """Adds memories, ids that are taken too; the same request again changes nothing."""
        cube = self.choose_cube(data)
        ids = data.draw(st.lists(st.sampled_from(IDS), min_size=len(words), max_size=len(words), unique=True))
        new = {id_: f"common {word} {id_}" for id_, word in zip(ids, words, strict=True)}
        memories = [text(word, name=f"{cube.name}/memories/{id_}") for id_, word in new.items()]
        fields = {"parent": cube.name, "memories": memories, "request_id": str(uuid.uuid4())}
        _, got = self.both(cube, lambda: cube.add(new), "AddMemories", **fields)
        if repeated and got is not None:
            assert self.call("AddMemories", **fields) == got

    @rule(data=st.data(), words=WORDS)
    def update(self, data: st.DataObject, words: str) -> None:
        """Gives a memory another text, or the one that it has."""
        cube = self.choose_cube(data)
        (id_,) = self.choose_ids(data, cube, most=1)
        words = f"common {words} {id_}"
        memory = text(words, name=f"{cube.name}/memories/{id_}")
        self.both(cube, lambda: cube.update(id_, words), "UpdateMemory", memory=memory)

    @rule(data=st.data(), state=st.sampled_from([ACTIVE, ARCHIVED, DELETED]))
    def transition(self, data: st.DataObject, state: int) -> None:
        """Moves memories to a state, also where that is not permitted."""
        cube = self.choose_cube(data)
        ids = self.choose_ids(data, cube)
        named = {"parent": cube.name, "names": [f"{cube.name}/memories/{id_}" for id_ in ids]}
        self.both(cube, lambda: cube.transition(ids, state), "TransitionMemories", **named, state=state)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Deletes memories."""
        cube = self.choose_cube(data)
        ids = self.choose_ids(data, cube)
        named = {"parent": cube.name, "names": [f"{cube.name}/memories/{id_}" for id_ in ids]}
        self.both(cube, lambda: cube.transition(ids, DELETED), "DeleteMemories", **named)

    @rule(data=st.data(), words=st.none() | WORDS)
    def merge(self, data: st.DataObject, words: str | None) -> None:
        """Merges memories into another or into a new one, with a given text or the joined one."""
        cube = self.choose_cube(data)
        sources = self.choose_ids(data, cube)
        target = data.draw(st.sampled_from([id_ for id_ in IDS if id_ not in sources]), label="target")
        given = f"common {words} merged" if words else ""
        if sum(len(cube.now.items[id_].text) for id_ in sources) > 10_000:
            given = "common and short"
        fields: dict[str, Any] = {"parent": cube.name, "sources": [f"{cube.name}/memories/{id_}" for id_ in sources]}
        name = f"{cube.name}/memories/{target}"
        if target in cube.now.items:
            fields |= {"target": name, "merged": text(given) if given else None}
        else:
            fields |= {"merged": text(given or "common and new", name=name)}
            given = given or "common and new"
        expected, got = self.both(cube, lambda: cube.merge(sources, target, given), "MergeMemories", **fields)
        if got is not None:
            assert (got.memory.name, got.memory.plaintext.text) == (name, expected)

    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        """Erases memories."""
        cube = self.choose_cube(data)
        ids = self.choose_ids(data, cube, most=2)
        named = {"parent": cube.name, "names": [f"{cube.name}/memories/{id_}" for id_ in ids]}
        self.both(cube, lambda: cube.purge(ids), "PurgeMemories", **named, reason="asked for")

    @rule(data=st.data(), type_=TYPES, weight=WEIGHTS)
    def relate(self, data: st.DataObject, type_: str, weight: float) -> None:
        """Relates memories in a row; a second parent and a cycle are refused."""
        cube = self.choose_cube(data)
        ends = self.choose_ids(data, cube, least=2, most=4)
        edges = {(source, target, type_): weight for source, target in pairwise(ends)}
        relations = [self.edge(cube, *edge, weight) for edge in edges]
        self.both(cube, lambda: cube.relate(edges), "CreateRelations", parent=cube.name, relations=relations)

    @precondition(lambda self: all(cube.now.edges for cube in self.cubes))
    @rule(data=st.data())
    def unrelate(self, data: st.DataObject) -> None:
        """Ends a relation, one that has ended too."""
        cube = self.choose_cube(data)
        edge = data.draw(st.sampled_from(list(cube.now.edges)), label="edge")
        relations = [self.edge(cube, *edge)]
        self.both(cube, lambda: cube.unrelate(edge), "DeleteRelations", parent=cube.name, relations=relations)

    @staticmethod
    def edge(cube: CubeModel, source: str, target: str, type_: str, weight: float = 0) -> Relation:
        """Returns a relation's message."""
        prefix = f"{cube.name}/memories/"
        return Relation(source=prefix + source, target=prefix + target, type=type_, weight=weight)

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        """Brings a cube back to one of its revisions."""
        cube = self.choose_cube(data)
        to = self.choose_revision(data, cube)
        expected, got = self.both(cube, lambda: cube.rollback(to), "RollbackCube", name=cube.name, to_revision=to)
        skipped = {item.name.rpartition("/")[2]: item.purge_revision for item in got.skipped_purges}
        assert skipped == {id_: cube.now.items[id_].revision for id_ in expected}

    @precondition(lambda self: len(self.cubes) < MOST_CUBES)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        """Makes a cube from a revision of another."""
        cube = self.choose_cube(data)
        revision = self.choose_revision(data, cube)
        fork_id = f"c{next(self.driver.cubes)}"
        forked = cube.fork(f"cubes/{fork_id}", revision)
        if len(forked.now.items) > 1:
            got = self.call("ForkCube", name=cube.name, cube_id=fork_id, revision=revision)
            assert (got.commit.revision, got.commit.change_count) == (1, forked.changes + 1)
            self.cubes.append(forked)

    @rule(often=st.integers(0, 3))
    def restart(self, often: int) -> None:
        """Stops the server and starts it again, now and then."""
        if often == 3:
            self.driver.restart()

    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Reads a revision of a cube, in between."""
        cube = self.choose_cube(data)
        self.check_revision(cube, self.choose_revision(data, cube))

    # What must hold

    def check_revision(self, cube: CubeModel, revision: int) -> None:
        """Compares everything that can be read at a revision."""
        at = {"as_of_revision": revision}
        listed = self.call("ListMemories", parent=cube.name, show_deleted=True, page_size=1000, **at).memories
        memories = [(short(m.name), m.state, m.plaintext.text, short(m.merged_into), m.revision) for m in listed]
        assert memories == cube.memories(revision)
        relations = self.call("ListRelations", parent=cube.name, page_size=1000, **at).relations
        edges = [((short(r.source), short(r.target), r.type), r.weight) for r in relations]
        assert edges == cube.relations(revision)
        lexical = {"query": "common", "mode": SEARCH_MODE_LEXICAL}
        for asked in (lexical, {}):
            found = self.call("SearchMemories", cubes=[cube.name], top_k=1000, **asked, **at)
            assert not found.stale
            assert not found.unreachable
            hits = [short(hit.memory.name) for hit in found.hits]
            assert len(hits) == len(set(hits))
            assert set(hits) == cube.active(revision)
            texts = {id_: words for id_, _, words, *_ in cube.memories(revision)}
            assert all(hit.memory.plaintext.text == texts[short(hit.memory.name)] for hit in found.hits)

    def teardown(self) -> None:
        """Compares the present, the past and the history of each memory, and verifies the chain."""
        for cube in self.cubes:
            verified = self.call("VerifyCube", name=cube.name)
            assert verified.valid, verified.findings
            assert verified.head_revision == verified.indexed_revision == cube.revision
            for revision in {1, (cube.revision + 1) // 2, max(1, cube.revision - 1), cube.revision}:
                self.check_revision(cube, revision)
            for id_ in cube.now.items:
                versions = self.call("ListMemoryRevisions", name=f"{cube.name}/memories/{id_}", page_size=1000).memories
                assert [(m.revision, m.state, m.plaintext.text) for m in versions] == cube.history(id_)


def short(name: str) -> str:
    """Returns the last part of a name."""
    return name.rpartition("/")[2]


BOUNDS = {"deadline": None, "suppress_health_check": list(HealthCheck), "stateful_step_count": 25}


def test_random_histories_read_as_the_model_says_at_every_revision(tmp_path: Path) -> None:
    with driver(tmp_path / "data") as real:
        bounds = settings(max_examples=45, derandomize=True, database=None, **BOUNDS)  # type: ignore[arg-type]
        run_state_machine_as_test(lambda: LogMachine(real), settings=bounds)  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_random_histories_read_as_the_model_says_at_every_revision(tmp_path: Path) -> None:
    with driver(tmp_path / "data") as real:
        bounds = settings(max_examples=1000, **{**BOUNDS, "stateful_step_count": 50})  # type: ignore[arg-type]
        run_state_machine_as_test(lambda: LogMachine(real), settings=bounds)  # type: ignore[arg-type]
