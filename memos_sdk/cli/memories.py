"""`memos add`, `search`, `get`, `list`, `update` and what else is done with memories."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memos_sdk._core.unset import UNSET
from memos_sdk.cli.context import Cli, clean, command
from memos_sdk.cli.cubes import show_purge, take, when
from memos_sdk.cli.parsing import (
    AsOfOption,
    CauseOption,
    CubeArgument,
    MemoriesArgument,
    MemoryArgument,
    RequestIdOption,
    YesOption,
    confirm,
    parse_labels,
    parse_object,
)
from memos_sdk.documents import read_pieces
from memos_sdk.errors import UsageError

if TYPE_CHECKING:
    from memos_sdk import Memory, Mutation, SearchResult

TagOption = Annotated[list[str] | None, typer.Option("--tag", "-t", help="A tag; may be repeated.")]
LabelOption = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label.")]
AttributesOption = Annotated[str | None, typer.Option("--attributes", metavar="JSON", help="A JSON object.")]
KindOption = Annotated[str | None, typer.Option("--kind", help="What sort, such as fact, preference, event.")]
SessionOption = Annotated[str | None, typer.Option("--session", help="The session that it was made in.")]
SensitivityOption = Annotated[
    str | None, typer.Option("--sensitivity", help="public, internal, confidential or secret.")
]
FilterOption = Annotated[str, typer.Option("--filter", "-f", help="A filter, such as 'tags:\"work\"'.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for name, function in (
        ("add", add),
        ("search", search),
        ("get", get),
        ("list", list_memories),
        ("update", update),
        ("history", history),
        ("archive", archive),
        ("activate", activate),
        ("merge", merge),
        ("delete", delete),
        ("purge", purge),
    ):
        command(app, name)(function)


def add(
    cli: Cli,
    cube: CubeArgument,
    text: Annotated[list[str] | None, typer.Argument(help="Texts, a memory each; - or nothing reads stdin.")] = None,
    file: Annotated[
        list[Path] | None, typer.Option("--file", help="A text or Markdown file, one memory a paragraph.")
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option("--jsonl", help='A file with one JSON object a line, such as {"text": …}; - is stdin.'),
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="The id, for a single text.")] = None,
    tag: TagOption = None,
    label: LabelOption = None,
    attributes: AttributesOption = None,
    kind: KindOption = None,
    session: SessionOption = None,
    sensitivity: SensitivityOption = None,
    confidence: Annotated[float | None, typer.Option("--confidence", help="How sure, 0 to 1.", min=0, max=1)] = None,
    cause: CauseOption = "",
    request_id: RequestIdOption = "",
) -> None:
    """Add memories: texts, standard input, paragraphs of files, or JSON lines."""
    fields = {
        "tags": tag or None,
        "labels": parse_labels(label) or None,
        "attributes": parse_object(attributes, "--attributes"),
        "kind": kind,
        "session": session,
        "sensitivity": sensitivity,
        "confidence": confidence,
    }
    shared = {key: value for key, value in fields.items() if value is not None}
    texts = list(text or [])
    if texts == ["-"] or (not texts and not file and jsonl is None):
        texts = [_stdin_text()]
    if id is not None and (len(texts) != 1 or file or jsonl is not None):
        raise UsageError("--id names one memory", reason="CONFLICTING_ARGUMENTS", remedy="Give one text with --id.")
    target = cli.client.cube(cube)
    if len(texts) == 1 and not file and jsonl is None:
        stored = target.add({"text": texts[0], "id": id, **shared}, cause=cause, request_id=request_id)
        cli.emit(stored, lambda: _show_added(cli, stored))
        return
    items: Iterator[dict[str, Any]] = ({**item, **shared} for item in _items(texts, file or [], jsonl))
    with cli.progress(f"adding to {cube}", None, "memories") as advance:
        summary = target.add_many(items, cause=cause, progress=advance, request_id=request_id)

    def people() -> None:
        last = summary.commits[-1].revision if summary.commits else 0
        cli.say(f"added {summary.added} memories to {target.name}" + (f", revision {last}" if last else ""))
        if summary.index_pending:
            cli.note("search does not see all of them yet")

    cli.emit(summary, people)


def search(
    cli: Cli,
    cube: CubeArgument,
    query: Annotated[str | None, typer.Argument(help="What to look for; without it the newest memories.")] = None,
    also: Annotated[list[str] | None, typer.Option("--also", metavar="CUBE", help="Search this cube too.")] = None,
    top_k: Annotated[int, typer.Option("--top-k", "--limit", "-k", "-n", help="The most hits.", min=1, max=1000)] = 10,
    mode: Annotated[str, typer.Option("--mode", help="hybrid, vector, lexical or graph.")] = "hybrid",
    filter: FilterOption = "",
    as_of: AsOfOption = None,
    as_of_time: Annotated[
        datetime.datetime | None,
        typer.Option(
            "--as-of-time", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"], help="As of a time."
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Explain each hit.")] = False,
    rerank: Annotated[str, typer.Option("--rerank", help="A reranker that the server lists.")] = "",
) -> None:
    """Find memories by words, meaning and relations, now or in the past."""
    if as_of is not None and as_of_time is not None:
        raise UsageError(
            "--as-of and --as-of-time exclude each other", reason="CONFLICTING_ARGUMENTS", remedy="Give one of them."
        )
    # A time without a zone is what the reader's clock shows.
    moment = as_of_time.astimezone() if as_of_time is not None else None
    found = cli.client.search(
        query,
        cubes=[cube, *(also or [])],
        filter=filter,
        top_k=top_k,
        mode=mode,
        as_of=as_of if as_of is not None else moment,
        explain=explain,
        rerank=rerank,
    )
    cli.emit(found, lambda: _show_found(cli, found, several=bool(also)))


def get(
    cli: Cli,
    cube: CubeArgument,
    memory: MemoryArgument,
    as_of: AsOfOption = None,
    vectors: Annotated[bool, typer.Option("--vectors", help="Add the stored vectors (with --json).")] = False,
) -> None:
    """Show a memory, in any state."""
    found = cli.client.cube(cube).get(memory, as_of=as_of, include_vectors=vectors)
    cli.emit(found, lambda: _show_memory(cli, found))


def list_memories(
    cli: Cli,
    cube: CubeArgument,
    filter: FilterOption = "",
    limit: Annotated[int, typer.Option("--limit", "-n", help="The most memories; 0 for all.", min=0)] = 50,
    as_of: AsOfOption = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Include deleted and purged memories.")] = False,
) -> None:
    """List the memories of a cube in the order of their addition."""
    page = min(limit, 1000)
    found = cli.client.cube(cube).list(filter, as_of=as_of, show_deleted=deleted, page_size=page)
    cli.rows(
        take(found, limit),
        ["MEMORY", "STATE", ">REVISION", "TAGS", "~TEXT"],
        lambda memory: [memory.id, memory.state.name.lower(), memory.revision, ",".join(memory.tags), _text(memory)],
        empty="no memories" + (" that pass the filter" if filter else ""),
    )


def update(
    cli: Cli,
    cube: CubeArgument,
    memory: MemoryArgument,
    text: Annotated[str | None, typer.Argument(help="The new text; - reads stdin.")] = None,
    tag: TagOption = None,
    label: LabelOption = None,
    attributes: AttributesOption = None,
    kind: KindOption = None,
    session: SessionOption = None,
    sensitivity: SensitivityOption = None,
    confidence: Annotated[float | None, typer.Option("--confidence", help="How sure, 0 to 1.", min=0, max=1)] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="The principal that owns it.")] = None,
    etag: Annotated[str, typer.Option("--etag", help="Refuse when the memory has another etag.")] = "",
    cause: CauseOption = "",
    request_id: RequestIdOption = "",
) -> None:
    """Replace fields of a memory, as a new version; what is not given stays."""
    if text == "-":
        text = _stdin_text()
    parsed = parse_object(attributes, "--attributes")
    changed = cli.client.cube(cube).update(
        memory,
        UNSET if text is None else text,
        tags=UNSET if tag is None else tag,
        labels=UNSET if label is None else parse_labels(label),
        attributes=UNSET if parsed is None else parsed,
        kind=UNSET if kind is None else kind,
        session=UNSET if session is None else session,
        sensitivity=UNSET if sensitivity is None else sensitivity,
        confidence=UNSET if confidence is None else confidence,
        owner=UNSET if owner is None else owner,
        etag=etag,
        cause=cause,
        request_id=request_id,
    )
    cli.emit(changed, lambda: cli.say(f"{changed.name} is now at revision {changed.revision}"))


def history(cli: Cli, cube: CubeArgument, memory: MemoryArgument) -> None:
    """Show the versions of a memory, newest first."""
    cli.rows(
        cli.client.cube(cube).history(memory),
        [">REVISION", "WHEN", "STATE", "ETAG", "~TEXT"],
        lambda version: [
            version.revision,
            when(version.update_time),
            version.state.name.lower(),
            version.etag[:12],
            _text(version),
        ],
        empty="no versions",
    )


def archive(
    cli: Cli, cube: CubeArgument, memory: MemoriesArgument, cause: CauseOption = "", request_id: RequestIdOption = ""
) -> None:
    """Archive memories: search finds them only where a filter asks for archived ones."""
    done = cli.client.cube(cube).archive(*memory, cause=cause, request_id=request_id)
    _emit_mutation(cli, done, f"archived {_count(memory)}")


def activate(
    cli: Cli, cube: CubeArgument, memory: MemoriesArgument, cause: CauseOption = "", request_id: RequestIdOption = ""
) -> None:
    """Make archived, merged or deleted memories active again."""
    done = cli.client.cube(cube).restore(*memory, cause=cause, request_id=request_id)
    _emit_mutation(cli, done, f"activated {_count(memory)}")


def merge(
    cli: Cli,
    cube: CubeArgument,
    memory: MemoriesArgument,
    into: Annotated[str | None, typer.Option("--into", help="The existing memory that absorbs them.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="The text of the absorbing memory.")] = None,
    cause: CauseOption = "",
    request_id: RequestIdOption = "",
) -> None:
    """Let one memory absorb others, which keep naming it."""
    kept = cli.client.cube(cube).merge(memory, into=into, merged=text, cause=cause, request_id=request_id)
    cli.emit(kept, lambda: cli.say(f"{kept.name} absorbed {_count(memory)} at revision {kept.revision}"))


def delete(
    cli: Cli,
    cube: CubeArgument,
    memory: MemoriesArgument,
    etag: Annotated[str, typer.Option("--etag", help="Refuse when the one memory has another etag.")] = "",
    cause: CauseOption = "",
    request_id: RequestIdOption = "",
) -> None:
    """Mark memories deleted; `memos activate` brings them back."""
    done = cli.client.cube(cube).delete(*memory, etag=etag, cause=cause, request_id=request_id)
    _emit_mutation(cli, done, f"deleted {_count(memory)}; `memos activate {cube} ID` brings one back")


def purge(
    cli: Cli,
    cube: CubeArgument,
    memory: MemoriesArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the log for good.")],
    yes: YesOption = False,
    request_id: RequestIdOption = "",
) -> None:
    """Erase all versions of memories for good."""
    confirm(cli, yes, f"Erase {_count(memory)} of {cube} for good?")
    done = cli.client.cube(cube).purge(*memory, reason=reason, request_id=request_id)
    cli.emit(done, lambda: show_purge(cli, done, _count(memory)))


def _items(texts: list[str], files: list[Path], jsonl: Path | None) -> Iterator[dict[str, Any]]:
    for text in texts:
        yield {"text": text}
    for path in files:
        yield from read_pieces(path)
    if jsonl is not None:
        yield from _json_lines(jsonl)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file of JSON lines; an error names the line."""
    try:
        with sys.stdin if str(path) == "-" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _json_object(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", reason="FILE_UNREADABLE", remedy="Check the file.") from error


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place} is not JSON: {error}", reason="INVALID_JSON", remedy="Correct the line.") from None
    if not isinstance(parsed, dict):
        raise UsageError(f"{place} is not an object", reason="INVALID_JSON", remedy='Write each line as {"text": "…"}.')
    return parsed


def _stdin_text() -> str:
    if sys.stdin.isatty():
        typer.echo("reading the text from the keyboard; Ctrl-D ends", err=True)
    text = sys.stdin.read().strip("\n")
    if not text.strip():
        raise UsageError("there is no text", reason="FIELD_REQUIRED", remedy="Give a text, or pipe one in.")
    return text


def _count(memories: list[str]) -> str:
    return f"memory {memories[0]}" if len(memories) == 1 else f"{len(memories)} memories"


def _text(memory: Memory) -> str:
    return memory.text or f"({memory.payload or memory.state.name.lower()})"


def _emit_mutation(cli: Cli, done: Mutation, message: str) -> None:
    cli.emit(done, lambda: cli.say(f"{message} (revision {done.commit.revision})"))


def _show_added(cli: Cli, memory: Memory) -> None:
    cli.say(f"{memory.name} at revision {memory.revision}")
    if memory.index_pending:
        cli.note("search does not see it yet")


def _show_found(cli: Cli, found: SearchResult, *, several: bool) -> None:
    for hit in found:
        memory = hit.memory
        name = memory.name.removeprefix("cubes/") if several else memory.id
        cli.say(f"{hit.score:.3f}  {name}" + (f"  [{', '.join(memory.tags)}]" if memory.tags else ""))
        for line in _text(memory).split("\n")[:6]:
            cli.say("       " + line)
        place = _place(memory)
        if place:
            cli.note("       " + place)
        if hit.explanation is not None:
            for channel in hit.explanation.channels:
                cli.note(
                    f"       {channel.channel}: rank {channel.rank}, score {channel.score:.4f}, "
                    f"adds {channel.contribution:.4f}"
                )
            if hit.explanation.matched_terms:
                cli.note("       terms: " + ", ".join(hit.explanation.matched_terms))
            if hit.explanation.path:
                cli.note("       path: " + " > ".join(hit.explanation.path))
    if not found:
        cli.note("nothing found")
    for name in found.unreachable:
        cli.note(f"could not be reached: {name}")
    for name, revision in found.stale.items():
        cli.note(f"{name} was searched as of revision {revision}, its index is behind")
    for notice in found.notices:
        cli.note(notice)
    if found.size_limited:
        cli.note("hits were left off, the answer would have been too large")


def _place(memory: Memory) -> str:
    """Returns where the memory comes from, in a few words."""
    places = []
    for entry in memory.provenance:
        lines = f":{entry.line_start}-{entry.line_end}" if entry.line_start else ""
        speaker = f"{entry.speaker} " if entry.speaker else ""
        places.append(f"{speaker}{entry.source}{lines} {when(entry.time)}".strip())
    return "; ".join(place for place in places if place)


def _show_memory(cli: Cli, memory: Memory) -> None:
    for key, value in (
        ("name", memory.name),
        ("state", memory.state.name.lower() + (f" into {memory.merged_into}" if memory.merged_into else "")),
        ("revision", str(memory.revision)),
        ("etag", memory.etag),
        ("kind", memory.kind),
        ("tags", ", ".join(memory.tags)),
        ("labels", ", ".join(f"{key}={value}" for key, value in memory.labels.items())),
        ("attributes", json.dumps(memory.attributes, ensure_ascii=False) if memory.attributes else ""),
        ("from", _place(memory)),
        ("session", memory.session),
        ("valid", " to ".join(when(value) or "…" for value in (memory.valid_from, memory.valid_until)).strip("… to")),
        ("confidence", "" if memory.confidence is None else f"{memory.confidence:g}"),
        ("sensitivity", memory.sensitivity.name.lower() if memory.sensitivity else ""),
        ("owner", memory.owner),
        ("created", when(memory.create_time)),
        ("changed", when(memory.update_time)),
    ):
        if value:
            cli.say(f"{key + ':':<13}{clean(value)}")
    cli.say()
    cli.say(_text(memory))
