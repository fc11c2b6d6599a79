"""The log of a real server against a model of it: random histories, and every revision compared."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from memos_server._pb.mip.v1.commit_pb2 import Change, Commit
from memos_server._pb.mip.v1.memory_service_pb2 import SEARCH_MODE_LEXICAL, BulkAddMemoriesRequest
from tests.conftest import World
from tests.support.log_model import ACTIVE, ARCHIVED, DELETED, PARENT_OF, PURGED, CubeModel, Edge, Item, RefusedError
from tests.support.mip import Memory, Relation, RpcError, text

T = TypeVar("T")

WORDS = st.sampled_from(["tea", "coffee", "the weather in Oslo", "zwei Äpfel", "猫が好き", "a\nb"])
TYPES = st.sampled_from(["RELATES_TO", PARENT_OF])
WEIGHTS = st.sampled_from([0.5, 1.0, 2.0])
MOST_CUBES = 3
IDS = [f"m{number}" for number in range(12)]
POSITIONS = st.integers(0, 27_719)
"""Modulo the number of options, one of them. All numbers up to 12 divide 27 720, so that of few none is preferred."""


class Driver:
    """Runs calls of one server from synchronous rules."""

    def __init__(self, world: World, runner: asyncio.Runner) -> None:
        """Uses a server that runs in the runner's loop."""
        self.world, self._runner = world, runner
        self.mip = world.admin
        self.cubes = count()
        self._folders = count(1)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine to its end."""
        return self._runner.run(coroutine)

    def restart(self) -> None:
        """Stops the server and starts it again on its folder."""
        self.run(self.world.restart())
        self.mip = self.world.admin

    def kill(self) -> None:
        """Starts a server on what the files of the running one hold now, as if that had been killed."""
        folder = self.world.data.with_name(f"killed{next(self._folders)}")
        with closing(sqlite3.connect(self.world.data / "record.sqlite")) as reader:
            # While somebody reads, no checkpoint begins the write-ahead log anew between the copies of the two files.
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM cubes").fetchone()
            shutil.copytree(self.world.data, folder, ignore=shutil.ignore_patterns("*.lock", "server.json"))
        self.run(self.world.stop())
        shutil.rmtree(self.world.data)
        self.world = World(folder)
        self.run(self.world.start())
        self.mip = self.world.admin


@contextmanager
def driver(folder: Path) -> Iterator[Driver]:
    """Starts a server of its own."""
    with asyncio.Runner() as runner:
        world = World(folder)
        runner.run(world.start())
        made = Driver(world, runner)
        try:
            yield made
        finally:
            runner.run(made.world.stop())


@dataclass
class Step:
    """A call, and what it means in the model."""

    model: Callable[[], Any]
    rpc: str
    fields: dict[str, Any]

    def __post_init__(self) -> None:
        """Gives the call a request_id, so that it can be repeated later."""
        self.fields["request_id"] = str(uuid.uuid4())


class LogMachine(RuleBasedStateMachine):
    """Does the same to a few cubes of a server and to their models.

    Which of several callers commits first is the server's choice (see `together`), and what there is afterwards with
    it. Hypothesis demands that what may be drawn follows from what was drawn before, so it must not follow from what
    there is: rules have no preconditions, draw the same way whatever the models hold, and find with `pick` what the
    numbers mean.
    """

    def __init__(self, driver: Driver) -> None:
        """Uses a server that other examples use too, with cubes of its own."""
        super().__init__()
        self.driver = driver
        self.cubes: list[CubeModel] = []
        self.done: list[tuple[str, dict[str, Any], Commit]] = []
        self.etags: dict[tuple[str, str], dict[tuple[int, int, int], str]] = {}

    # Ways to choose

    @staticmethod
    def pick(data: st.DataObject, options: Sequence[T], label: str) -> T:
        """Draws one of the things that there are, however many that is."""
        chosen = options[data.draw(POSITIONS) % len(options)]
        note(f"{label}: {chosen!r}")
        return chosen

    def choose_cube(self, data: st.DataObject) -> CubeModel:
        """Draws a cube."""
        cube = self.cubes[data.draw(POSITIONS) % len(self.cubes)]
        note(f"cube: {cube.name}")
        return cube

    def choose_ids(self, data: st.DataObject, cube: CubeModel, least: int = 1, most: int = 3) -> list[str]:
        """Draws different memories of a cube; mostly ACTIVE ones, so that most calls do something."""
        any_state = data.draw(st.integers(0, 3), label="any state") == 0
        positions = data.draw(st.lists(POSITIONS, min_size=least, max_size=most))
        pool = [id_ for id_, item in cube.now.items.items() if item.state == ACTIVE]
        if any_state or len(pool) < least:
            pool = list(cube.now.items)
        ids = [pool.pop(position % len(pool)) for position in positions if pool]
        note(f"ids: {ids}")
        return ids

    def choose_revision(self, data: st.DataObject, cube: CubeModel) -> int:
        """Draws a revision of a cube, the one before the head as often as all others."""
        before_head = data.draw(st.booleans(), label="the one before the head")
        revision = self.pick(data, range(1, cube.revision + 1), "revision")
        return max(1, cube.revision - 1) if before_head else revision

    # Ways to call

    def both(self, cube: CubeModel, step: Step) -> tuple[Any, Any]:
        """Does a call and what it means in the model; both succeed or the call is refused for the model's reason."""
        before = cube.revision
        try:
            expected = step.model()
        except RefusedError as refused:
            reason = str(refused)
            assert cube.revision == before
            with pytest.raises(RpcError) as raised:
                self.call(step.rpc, **step.fields)
            assert raised.value.reason == reason
            return None, None
        got = self.call(step.rpc, **step.fields)
        assert cube.revision == before + 1
        self.committed(cube, step, got)
        return expected, got

    def committed(self, cube: CubeModel, step: Step, got: Any) -> None:
        """Checks that a call made the model's last commit, and remembers the call."""
        assert got.commit.revision == cube.revision
        assert got.commit.change_count == cube.changes
        self.done.append((step.rpc, step.fields, got.commit))

    def call(self, rpc: str, **fields: Any) -> Any:
        """Makes a call."""
        return self.driver.run(self.calling(rpc, fields))

    async def calling(self, rpc: str, fields: dict[str, Any]) -> Any:
        """Makes a call; one that is a stream of frames is given its memories two a frame."""
        mip = self.driver.mip
        if rpc != "BulkAddMemories":
            return await mip.call(rpc, **fields)
        memories = fields["memories"]
        header = {key: value for key, value in fields.items() if key != "memories"}
        batches = [{"memories": memories[at : at + 2]} for at in range(0, len(memories), 2)]
        frames = [{"header": header}, *({"batch": batch} for batch in batches), {"finish": True}]
        return await mip.upload(rpc, [BulkAddMemoriesRequest(**frame) for frame in frames])

    # What can be done to memories and relations, also by several at once

    def some_add(self, data: st.DataObject, cube: CubeModel) -> Step:
        """Adds memories, ids that are taken too, at once or in a stream, into a session or none."""
        words = data.draw(st.lists(WORDS, min_size=1, max_size=3), label="words")
        ids = data.draw(st.lists(st.sampled_from(IDS), min_size=len(words), max_size=len(words), unique=True))
        session = self.pick(data, ["", *cube.now.sessions], "session")
        new = {id_: f"common {word} {id_}" for id_, word in zip(ids, words, strict=True)}
        inside = f"{cube.name}/sessions/{session}" if session else ""
        memories = [text(word, name=f"{cube.name}/memories/{id_}", session=inside) for id_, word in new.items()]
        rpc = data.draw(st.sampled_from(["AddMemories", "AddMemories", "BulkAddMemories"]), label="rpc")
        return Step(lambda: cube.add(new, session), rpc, {"parent": cube.name, "memories": memories})

    def some_update(self, data: st.DataObject, cube: CubeModel) -> Step:
        """Gives a memory another text, or the one that it has."""
        (id_,) = self.choose_ids(data, cube, most=1)
        words = f"common {data.draw(WORDS, label='words')} {id_}"
        memory = text(words, name=f"{cube.name}/memories/{id_}")
        return Step(lambda: cube.update(id_, words), "UpdateMemory", {"memory": memory})

    def some_transition(self, data: st.DataObject, cube: CubeModel) -> Step:
        """Moves memories to a state, also where that is not permitted."""
        ids, state = self.choose_ids(data, cube), data.draw(st.sampled_from([ACTIVE, ARCHIVED, DELETED]), label="state")
        return Step(lambda: cube.transition(ids, state), "TransitionMemories", self.named(cube, ids) | {"state": state})

    def some_deletion(self, data: st.DataObject, cube: CubeModel) -> Step:
        """Deletes memories."""
        ids = self.choose_ids(data, cube)
        return Step(lambda: cube.transition(ids, DELETED), "DeleteMemories", self.named(cube, ids))

    def some_purge(self, data: st.DataObject, cube: CubeModel) -> Step:
        """Erases memories."""
        ids = self.choose_ids(data, cube, most=2)
        return Step(lambda: cube.purge(ids), "PurgeMemories", self.named(cube, ids) | {"reason": "asked for"})

    def some_relation(self, data: st.DataObject, cube: CubeModel) -> Step:
        """Relates memories in a row; a second parent and a cycle are refused."""
        type_, weight = data.draw(TYPES, label="type"), data.draw(WEIGHTS, label="weight")
        ends = self.choose_ids(data, cube, least=2, most=4)
        edges = {(source, target, type_): weight for source, target in pairwise(ends)}
        relations = [self.edge(cube, *edge, weight) for edge in edges]
        return Step(lambda: cube.relate(edges), "CreateRelations", {"parent": cube.name, "relations": relations})

    @staticmethod
    def named(cube: CubeModel, ids: list[str]) -> dict[str, Any]:
        """Returns the fields of a call on memories."""
        return {"parent": cube.name, "names": [f"{cube.name}/memories/{id_}" for id_ in ids]}

    @staticmethod
    def edge(cube: CubeModel, source: str, target: str, type_: str, weight: float = 0) -> Relation:
        """Returns a relation's message."""
        prefix = f"{cube.name}/memories/"
        return Relation(source=prefix + source, target=prefix + target, type=type_, weight=weight)

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

    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        """See some_add."""
        cube = self.choose_cube(data)
        self.both(cube, self.some_add(data, cube))

    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        """See some_update."""
        cube = self.choose_cube(data)
        self.both(cube, self.some_update(data, cube))

    @rule(data=st.data())
    def transition(self, data: st.DataObject) -> None:
        """See some_transition."""
        cube = self.choose_cube(data)
        self.both(cube, self.some_transition(data, cube))

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """See some_deletion."""
        cube = self.choose_cube(data)
        self.both(cube, self.some_deletion(data, cube))

    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        """See some_purge."""
        cube = self.choose_cube(data)
        self.both(cube, self.some_purge(data, cube))

    @rule(data=st.data())
    def relate(self, data: st.DataObject) -> None:
        """See some_relation."""
        cube = self.choose_cube(data)
        self.both(cube, self.some_relation(data, cube))

    @rule(data=st.data(), writers=st.integers(2, 5))
    def together(self, data: st.DataObject, writers: int) -> None:
        """Lets several callers write to a cube at once; in the order of their commits it is as if they came one by one.

        Who is refused was so at one of the moments in between.
        """
        cube = self.choose_cube(data)
        sorts = [self.some_add, self.some_update, self.some_transition, self.some_deletion, self.some_relation]
        sorts.append(self.some_purge)
        steps = [data.draw(st.sampled_from(sorts), label="sort")(data, cube) for _ in range(writers)]

        async def at_once() -> list[Any]:
            calls = [self.calling(step.rpc, step.fields) for step in steps]
            return await asyncio.gather(*calls, return_exceptions=True)

        answers = list(zip(steps, self.driver.run(at_once()), strict=True))
        refused = [(step, answer.reason) for step, answer in answers if isinstance(answer, RpcError)]
        explained = [reason in self.refusals(cube, step) for step, reason in refused]
        won = [(step, answer) for step, answer in answers if not isinstance(answer, BaseException)]
        assert len(won) + len(refused) == len(steps), answers
        for step, got in sorted(won, key=lambda pair: pair[1].commit.revision):
            step.model()
            self.committed(cube, step, got)
            explained = [
                known or reason in self.refusals(cube, other)
                for known, (other, reason) in zip(explained, refused, strict=True)
            ]
        assert all(explained), [reason for known, (_, reason) in zip(explained, refused, strict=True) if not known]

    @staticmethod
    def refusals(cube: CubeModel, step: Step) -> set[str]:
        """Returns why a call would be refused now; nothing when it would not. The model stays as it is."""
        log, changed = len(cube.log), len(cube.changed)
        try:
            step.model()
        except RefusedError as refused:
            return {str(refused)}
        finally:
            del cube.log[log:], cube.changed[changed:]
        return set()

    @rule(data=st.data(), words=st.none() | WORDS)
    def merge(self, data: st.DataObject, words: str | None) -> None:
        """Merges memories into another or into a new one, with a given text or the joined one."""
        cube = self.choose_cube(data)
        sources = self.choose_ids(data, cube)
        target = self.pick(data, [id_ for id_ in IDS if id_ not in sources], "target")
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
        expected, got = self.both(cube, Step(lambda: cube.merge(sources, target, given), "MergeMemories", fields))
        if got is not None:
            assert (got.memory.name, got.memory.plaintext.text) == (name, expected)

    @rule(data=st.data())
    def unrelate(self, data: st.DataObject) -> None:
        """Ends a relation, one that has ended too; where there never was any, that is refused."""
        cube = self.choose_cube(data)
        source, target, *_ = cube.now.items
        edge = self.pick(data, list(cube.now.edges) or [(source, target, PARENT_OF)], "edge")
        fields = {"parent": cube.name, "relations": [self.edge(cube, *edge)]}
        self.both(cube, Step(lambda: cube.unrelate(edge), "DeleteRelations", fields))

    @rule(data=st.data(), id_=st.sampled_from(["s0", "s1", "s2"]))
    def session(self, data: st.DataObject, id_: str) -> None:
        """Begins a session, or ends one that there is, also one that has ended."""
        cube = self.choose_cube(data)
        end = data.draw(st.booleans(), label="end")
        if end and id_ in cube.now.sessions:
            fields = {"name": f"{cube.name}/sessions/{id_}"}
            self.both(cube, Step(lambda: cube.end_session(id_), "EndSession", fields))
        else:
            fields = {"parent": cube.name, "session_id": id_, "session": {"display_name": f"talk {id_}"}}
            self.both(cube, Step(lambda: cube.create_session(id_), "CreateSession", fields))

    @rule(data=st.data(), title=WORDS)
    def rename(self, data: st.DataObject, title: str) -> None:
        """Gives a cube a display name."""
        cube = self.choose_cube(data)
        title = title.replace("\n", " ")
        fields = {"cube": {"name": cube.name, "display_name": title}}
        self.both(cube, Step(lambda: cube.rename(title), "UpdateCube", fields))

    @rule(data=st.data(), often=st.integers(0, 3))
    def delete_cube(self, data: st.DataObject, often: int) -> None:
        """Deletes a cube now and then; the calls that follow are refused until it is restored."""
        cube = self.choose_cube(data)
        if often == 3:
            self.both(cube, Step(cube.delete_cube, "DeleteCube", {"name": cube.name}))
            self.repeat(data)

    @rule(data=st.data())
    def undelete_cube(self, data: st.DataObject) -> None:
        """Restores a cube, also one that is in use."""
        cube = self.choose_cube(data)
        self.both(cube, Step(cube.undelete_cube, "UndeleteCube", {"name": cube.name}))

    @rule(data=st.data(), often=st.integers(0, 3))
    def purge_cube(self, data: st.DataObject, often: int) -> None:
        """Erases a cube now and then, unless it is the only one."""
        cube = self.choose_cube(data)
        if often == 3:
            if len(self.cubes) > 1:
                fields = {"name": cube.name, "reason": "asked for"}
                self.both(cube, Step(cube.purge_cube, "PurgeCube", fields))
            self.repeat(data)

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        """Brings a cube back to one of its revisions."""
        cube = self.choose_cube(data)
        to = self.choose_revision(data, cube)
        fields = {"name": cube.name, "to_revision": to}
        expected, got = self.both(cube, Step(lambda: cube.rollback(to), "RollbackCube", fields))
        if got is not None:
            skipped = {item.name.rpartition("/")[2]: item.purge_revision for item in got.skipped_purges}
            assert skipped == {id_: cube.now.items[id_].revision for id_ in expected}

    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        """Makes a cube from a revision of another, up to MOST_CUBES."""
        cube = self.choose_cube(data)
        revision = self.choose_revision(data, cube)
        if len(self.cubes) == MOST_CUBES:
            return
        fork_id = f"c{next(self.driver.cubes)}"
        fields = {"name": cube.name, "cube_id": fork_id, "revision": revision}
        try:
            forked = cube.fork(f"cubes/{fork_id}", revision)
        except RefusedError as refused:
            reason = str(refused)
            with pytest.raises(RpcError) as raised:
                self.call("ForkCube", **fields)
            assert raised.value.reason == reason
            return
        if len(forked.now.items) > 1:
            step = Step(lambda: None, "ForkCube", fields)
            self.committed(forked, step, self.call(step.rpc, **step.fields))
            self.cubes.append(forked)

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Makes an earlier call again, whatever has happened since: the answer is its commit, and no other is made."""
        position = data.draw(POSITIONS)
        if self.done:
            rpc, fields, commit = self.done[position % len(self.done)]
            note(f"again: {rpc} of revision {commit.revision}")
            self.repeated(rpc, fields, commit)

    def repeated(self, rpc: str, fields: dict[str, Any], commit: Commit) -> None:
        """Checks that a call is answered as it was."""
        heads = [self.head(cube) for cube in self.cubes]
        assert self.call(rpc, **fields).commit == commit
        assert [self.head(cube) for cube in self.cubes] == heads

    def head(self, cube: CubeModel) -> Commit:
        """Returns the newest commit of a cube."""
        commit: Commit = self.call("ListCommits", parent=cube.name, page_size=1).commits[0]
        assert commit.revision == cube.revision
        return commit

    @rule(often=st.integers(0, 5))
    def restart(self, often: int) -> None:
        """Stops the server and starts it again, or kills it, now and then."""
        if often == 4:
            self.driver.restart()
        elif often == 5:
            self.driver.kill()

    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Reads a revision of a cube, in between."""
        cube = self.choose_cube(data)
        self.check_revision(cube, self.choose_revision(data, cube))

    # What must hold

    def check_revision(self, cube: CubeModel, revision: int) -> None:
        """Compares everything that can be read at a revision."""
        at = {"as_of_revision": revision}
        if cube.now.state != ACTIVE:
            with pytest.raises(RpcError) as raised:
                self.call("ListMemories", parent=cube.name, **at)
            assert raised.value.reason == ("CUBE_PURGED" if cube.now.state == PURGED else "CUBE_DELETED")
            return
        listed = self.call("ListMemories", parent=cube.name, show_deleted=True, page_size=1000, **at).memories
        memories = [(short(m.name), m.state, m.plaintext.text, short(m.merged_into), m.revision) for m in listed]
        assert memories == cube.memories(revision)
        for memory in listed:
            self.check_etag(cube, cube.log[revision - 1].items[short(memory.name)], memory)
        if revision == cube.revision:
            sessions = self.call("ListSessions", parent=cube.name).sessions
            assert {short(session.name): session.state for session in sessions} == dict(cube.now.sessions)
            assert self.call("GetCube", name=cube.name).cube.display_name == cube.now.title.text
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

    def check_etag(self, cube: CubeModel, item: Item, memory: Memory) -> None:
        """Checks that versions have the same etag exactly when state, content and absorber are the same."""
        if memory.state == PURGED:
            return
        known = self.etags.setdefault((cube.name, memory.uid), {})
        key = (item.state, item.content, item.revision if item.into else 0)
        assert known.setdefault(key, memory.etag) == memory.etag
        assert len(set(known.values())) == len(known)

    def check_log(self, cube: CubeModel) -> None:
        """Compares the log, as it is listed and as it is watched from its beginning, with what the model changed."""
        listed = list(reversed(self.call("ListCommits", parent=cube.name, page_size=1000).commits))
        assert [commit.revision for commit in listed] == list(range(1, cube.revision + 1))
        assert [commit.parent_digest for commit in listed[1:]] == [commit.digest for commit in listed[:-1]]
        assert [commit.change_count for commit in listed] == [len(changed) for changed in cube.changed]
        watched = self.driver.run(self.watched(cube))
        assert [commit for commit, _ in watched] == listed
        assert [changes_of(changes) for _, changes in watched] == cube.changed
        last = self.call("ListCommitChanges", parent=listed[-1].name, page_size=1000).changes
        assert list(last) == watched[-1][1]

    async def watched(self, cube: CubeModel) -> list[tuple[Commit, list[Change]]]:
        """Watches a cube from its first commit to its last."""
        seen: list[tuple[Commit, list[Change]]] = []
        async for frame in self.driver.mip.stream("WatchCube", name=cube.name, start_revision=1):
            if frame.HasField("commit"):
                seen.append((frame.commit, []))
            elif frame.HasField("changes"):
                seen[-1][1].extend(frame.changes.changes)
            elif frame.HasField("end") and frame.end.revision == cube.revision:
                break
        return seen

    def teardown(self) -> None:
        """Compares the present, the past and the history of each memory, and verifies the chain."""
        for cube in self.cubes:
            verified = self.call("VerifyCube", name=cube.name)
            assert verified.valid, verified.findings
            assert verified.head_revision == verified.indexed_revision == cube.revision
            self.check_log(cube)
            for revision in {1, (cube.revision + 1) // 2, max(1, cube.revision - 1), cube.revision}:
                self.check_revision(cube, revision)
            for id_ in cube.now.items if cube.now.state == ACTIVE else ():
                versions = self.call("ListMemoryRevisions", name=f"{cube.name}/memories/{id_}", page_size=1000).memories
                assert [(m.revision, m.state, m.plaintext.text) for m in versions] == cube.history(id_)


def changes_of(changes: list[Change]) -> dict[str | Edge, int]:
    """Returns changes as the model knows them."""
    return {
        (short(change.source), short(change.target), change.type) if change.source else change.name: change.after_state
        for change in changes
    }


def short(name: str) -> str:
    """Returns the last part of a name."""
    return name.rpartition("/")[2]


BOUNDS = {"deadline": None, "suppress_health_check": list(HealthCheck), "stateful_step_count": 25}


def test_random_histories_read_as_the_model_says_at_every_revision(tmp_path: Path) -> None:
    with driver(tmp_path / "data") as real:
        bounds = settings(max_examples=45, database=None, **BOUNDS)  # type: ignore[arg-type]
        # The same histories in every run; with this seed each sort of call is among them, the rare ones too.
        machine = seed(6)(lambda: LogMachine(real))
        run_state_machine_as_test(machine, settings=bounds)  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_random_histories_read_as_the_model_says_at_every_revision(tmp_path: Path) -> None:
    with driver(tmp_path / "data") as real:
        bounds = settings(max_examples=1000, **{**BOUNDS, "stateful_step_count": 50})  # type: ignore[arg-type]
        run_state_machine_as_test(lambda: LogMachine(real), settings=bounds)  # type: ignore[arg-type]
