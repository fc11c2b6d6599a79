"""What a cube's log must do, in a few dictionaries: the states, texts and relations of every revision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

ACTIVE, MERGED, ARCHIVED, DELETED, PURGED = 1, 2, 3, 4, 5
TRANSITIONS = {
    ACTIVE: {ARCHIVED, DELETED},
    MERGED: {ACTIVE, ARCHIVED, DELETED},
    ARCHIVED: {ACTIVE, DELETED},
    DELETED: {ACTIVE, ARCHIVED},
    PURGED: set(),
}
PARENT_OF = "PARENT_OF"

Edge = tuple[str, str, str]
"""Source, target, type."""


class RefusedError(Exception):
    """The cube must refuse the call with this reason."""


@dataclass(frozen=True)
class Item:
    """A memory at a revision; `content` tells apart contents that were written one after the other."""

    state: int
    text: str
    into: str
    revision: int
    content: int


@dataclass(frozen=True)
class Title:
    """A cube's display name; `content` tells apart those that were written one after the other."""

    text: str = ""
    content: int = 0


@dataclass(frozen=True)
class Snapshot:
    """A cube at a revision. All are in order of creation and keep what is gone; a relation that is gone weighs 0."""

    items: Mapping[str, Item] = field(default_factory=dict)
    edges: Mapping[Edge, float] = field(default_factory=dict)
    sessions: Mapping[str, int] = field(default_factory=dict)
    title: Title = Title()
    state: int = ACTIVE


class CubeModel:
    """A cube's log. Each change appends a snapshot, or raises RefusedError and changes nothing."""

    def __init__(self, name: str, first: Snapshot | None = None) -> None:
        """Makes a cube with its first commit."""
        self.name = name
        self.log: list[Snapshot] = []
        self.changed: list[dict[str | Edge, int]] = []
        """For each commit: what it changed (a relative name, or a relation's ends and type) -> the state after."""
        self._contents = 0
        first = first or Snapshot()
        self._append(first.items, first.edges, first.sessions, title=first.title)
        self._contents = max(len(self.now.items), first.title.content)

    @property
    def changes(self) -> int:
        """How many changes the last commit has."""
        return len(self.changed[-1])

    @property
    def now(self) -> Snapshot:
        """The present."""
        return self.log[-1]

    @property
    def revision(self) -> int:
        """The head's revision."""
        return len(self.log)

    def _append(
        self,
        items: Mapping[str, Item],
        edges: Mapping[Edge, float] | None = None,
        sessions: Mapping[str, int] | None = None,
        *,
        title: Title | None = None,
        state: int | None = None,
    ) -> None:
        now = self.now if self.log else Snapshot()
        changed: dict[str | Edge, int] = {f"memories/{id_}": item.state for id_, item in items.items()}
        changed |= {edge: ACTIVE if weight else DELETED for edge, weight in (edges or {}).items()}
        changed |= {f"sessions/{id_}": after for id_, after in (sessions or {}).items()}
        if title is not None or state is not None:
            changed[""] = state or now.state
        self.changed.append(changed)
        self.log.append(
            Snapshot(
                {**now.items, **items},
                {**now.edges, **(edges or {})},
                {**now.sessions, **(sessions or {})},
                title or now.title,
                state or now.state,
            )
        )

    def _in_use(self) -> None:
        if self.now.state != ACTIVE:
            raise RefusedError("CUBE_PURGED" if self.now.state == PURGED else "CUBE_DELETED")

    def _content(self) -> int:
        self._contents += 1
        return self._contents

    def _new(self, words: str) -> Item:
        return Item(ACTIVE, words, "", self.revision + 1, self._content())

    def add(self, texts: Mapping[str, str], session: str = "") -> None:
        """Adds memories, id -> text."""
        self._in_use()
        if session and self.now.sessions[session] != ACTIVE:
            raise RefusedError("SESSION_ENDED")
        if any(id_ in self.now.items for id_ in texts):
            raise RefusedError("ALREADY_EXISTS")
        self._append({id_: self._new(words) for id_, words in texts.items()})

    def update(self, id_: str, words: str) -> None:
        """Gives a memory a text; the same text makes a commit and no version."""
        self._in_use()
        item = self._updatable(id_)
        changed = replace(item, text=words, content=self._content(), revision=self.revision + 1)
        self._append({} if words == item.text else {id_: changed})

    def _updatable(self, id_: str) -> Item:
        item = self.now.items[id_]
        if item.state == PURGED:
            raise RefusedError("MEMORY_PURGED")
        if item.state == DELETED:
            raise RefusedError("INVALID_TRANSITION")
        return item

    def transition(self, ids: Iterable[str], state: int) -> None:
        """Moves memories to a state."""
        self._in_use()
        moved = {}
        for id_ in ids:
            item = self.now.items[id_]
            if item.state == PURGED:
                raise RefusedError("MEMORY_PURGED")
            if state not in TRANSITIONS[item.state]:
                raise RefusedError("INVALID_TRANSITION")
            moved[id_] = replace(item, state=state, into="", revision=self.revision + 1)
        self._append(moved)

    def merge(self, sources: Sequence[str], target: str, words: str) -> str:
        """Lets `target`, existing or new, absorb the sources; no words joins the texts. Returns the text."""
        self._in_use()
        for id_ in sources:
            state = self.now.items[id_].state
            if state == PURGED:
                raise RefusedError("MEMORY_PURGED")
            if state not in (ACTIVE, ARCHIVED):
                raise RefusedError("INVALID_TRANSITION")
        exists = target in self.now.items
        if exists:
            self._updatable(target)
        parts = [self.now.items[id_].text for id_ in ([target] if exists else []) + list(sources)]
        words = words or "\n\n".join(dict.fromkeys(parts))
        revision = self.revision + 1
        merged = {id_: replace(self.now.items[id_], state=MERGED, into=target, revision=revision) for id_ in sources}
        self._append({target: self._new(words), **merged})
        return words

    def purge(self, ids: Iterable[str]) -> None:
        """Erases memories from every revision, and ends their relations."""
        self._in_use()
        chosen = set(ids)
        if any(self.now.items[id_].state == PURGED for id_ in chosen):
            raise RefusedError("MEMORY_PURGED")
        gone = Item(PURGED, "", "", self.revision + 1, 0)
        cut = {edge: 0.0 for edge, weight in self.now.edges.items() if weight and chosen & {edge[0], edge[1]}}
        self._append(dict.fromkeys(chosen, gone), cut)

    def relate(self, edges: Mapping[Edge, float]) -> None:
        """Makes relations, or gives existing ones a weight."""
        self._in_use()
        for source, target, _ in edges:
            self._updatable(source)
            self._updatable(target)
        self._check_tree({**self.now.edges, **edges}, edges)
        self._append({}, edges)

    def _check_tree(self, after: Mapping[Edge, float], new: Iterable[Edge]) -> None:
        if not any(edge[2] == PARENT_OF for edge in new):
            return
        tree = [edge for edge, weight in after.items() if edge[2] == PARENT_OF and weight]
        parent = {target: source for source, target, _ in tree}
        if len(parent) < len(tree):
            raise RefusedError("INVALID_FIELD")
        for start in parent:
            position, seen = start, {start}
            while (position := parent.get(position, "")) != "":
                if position in seen:
                    raise RefusedError("INVALID_FIELD")
                seen.add(position)

    def unrelate(self, edge: Edge) -> None:
        """Ends a relation."""
        self._in_use()
        if not self.now.edges.get(edge):
            raise RefusedError("RELATION_NOT_FOUND")
        self._append({}, {edge: 0.0})

    def rollback(self, revision: int) -> list[str]:
        """Brings memories and relations back to a revision; returns the memories that stay purged."""
        self._in_use()
        then, skipped = self.log[revision - 1], []
        items: dict[str, Item] = {}
        for id_, item in self.now.items.items():
            old = then.items.get(id_)
            if item.state == PURGED:
                if old is not None and old.state != PURGED:
                    skipped.append(id_)
                continue
            back = replace(old, revision=0) if old else replace(item, state=DELETED, into="", revision=0)
            if back != replace(item, revision=0) and (old is not None or item.state != DELETED):
                items[id_] = replace(back, revision=self.revision + 1)
        purged = {id_ for id_, item in self.now.items.items() if item.state == PURGED}
        edges: dict[Edge, float] = {}
        for edge, weight in self.now.edges.items():
            restored = 0.0 if purged & {edge[0], edge[1]} else then.edges.get(edge, 0.0)
            if restored != weight:
                edges[edge] = restored
        back_to = then.title if then.title.content != self.now.title.content else None
        self._append(items, edges, title=back_to)
        return skipped

    def fork(self, name: str, revision: int) -> CubeModel:
        """Returns a cube made from a revision: what is purged now is not copied."""
        self._in_use()
        then = self.log[revision - 1]
        kept = [id_ for id_ in then.items if self.now.items[id_].state != PURGED]
        items = {}
        for number, id_ in enumerate(kept, start=1):
            item = then.items[id_]
            if item.state == MERGED and item.into not in kept:
                item = replace(item, state=ACTIVE, into="")
            items[id_] = replace(item, revision=1, content=number)
        edges = {edge: weight for edge, weight in then.edges.items() if weight and {edge[0], edge[1]} <= set(kept)}
        return CubeModel(name, Snapshot(items, edges, then.sessions, then.title))

    def create_session(self, id_: str) -> None:
        """Begins a session."""
        self._in_use()
        if id_ in self.now.sessions:
            raise RefusedError("ALREADY_EXISTS")
        self._append({}, sessions={id_: ACTIVE})

    def end_session(self, id_: str) -> None:
        """Ends a session."""
        self._in_use()
        if self.now.sessions[id_] != ACTIVE:
            raise RefusedError("SESSION_ENDED")
        self._append({}, sessions={id_: ARCHIVED})

    def rename(self, title: str) -> None:
        """Gives the cube a display name; the same name makes a commit and no version."""
        self._in_use()
        self._append({}, title=None if title == self.now.title.text else Title(title, self._content()))

    def delete_cube(self) -> None:
        """Deletes the cube."""
        self._in_use()
        self._append({}, state=DELETED)

    def undelete_cube(self) -> None:
        """Restores the cube; one that is in use gets an empty commit."""
        if self.now.state == PURGED:
            raise RefusedError("CUBE_PURGED")
        self._append({}, state=None if self.now.state == ACTIVE else ACTIVE)

    def purge_cube(self) -> None:
        """Erases everything in the cube."""
        if self.now.state == PURGED:
            raise RefusedError("CUBE_PURGED")
        gone = Item(PURGED, "", "", self.revision + 1, 0)
        items = {id_: gone for id_, item in self.now.items.items() if item.state != PURGED}
        edges = {edge: 0.0 for edge, weight in self.now.edges.items() if weight}
        self._append(items, edges, dict.fromkeys(self.now.sessions, PURGED), state=PURGED)

    # What readers see

    def memories(self, revision: int) -> list[tuple[str, int, str, str, int]]:
        """Returns (id, state, text, merged into, revision) of all memories at a revision, in order of creation."""
        seen = []
        for id_, item in self.log[revision - 1].items.items():
            now = self.now.items[id_]
            shown = now if now.state == PURGED else item
            seen.append((id_, shown.state, shown.text, shown.into, shown.revision))
        return seen

    def active(self, revision: int) -> set[str]:
        """Returns the memories that a search finds at a revision."""
        return {id_ for id_, state, *_ in self.memories(revision) if state == ACTIVE}

    def relations(self, revision: int) -> list[tuple[Edge, float]]:
        """Returns the relations at a revision in order of creation, without those of what is deleted or purged."""
        gone = {id_ for id_, state, *_ in self.memories(revision) if state in (DELETED, PURGED)}
        edges = self.log[revision - 1].edges
        return [(edge, weight) for edge, weight in edges.items() if weight and not gone & {edge[0], edge[1]}]

    def history(self, id_: str) -> list[tuple[int, int, str]]:
        """Returns (revision, state, text) of a memory's versions, newest first."""
        now = self.now.items[id_]
        if now.state == PURGED:
            return [(now.revision, PURGED, "")]
        versions = dict.fromkeys(snapshot.items[id_] for snapshot in self.log if id_ in snapshot.items)
        return [(item.revision, item.state, item.text) for item in reversed(versions)]
