"""`memos demo`: the main job end to end, on real text, with a server of its own."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import signal
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from memos_sdk.cli.context import Cli, clean, command
from memos_sdk.cli.cubes import when
from memos_sdk.cli.embedded import EmbeddedServer
from memos_sdk.documents import read_pieces
from memos_sdk.errors import DataLoss, UsageError

if TYPE_CHECKING:
    from memos_sdk import Client, Cube, Memory

_QUERY = "How can a bad change be undone?"
_ADDITION = "Corrected in the demo: the reader should also see the page about verification."


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "demo")(demo)


def demo(
    cli: Cli,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Texts to remember; else README.md and docs/ of this folder.")
    ] = None,
    query: Annotated[str | None, typer.Option("--query", "-q", help="What to search for.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings of the demo's server, such as its engines.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running, with its data.")] = False,
) -> None:
    """Show the main job with a server of its own: remember, search, update, roll back, verify, see who did what."""
    texts = _texts(files)
    folder = cli.options.data or Path(tempfile.mkdtemp(prefix="memos-demo-"))
    show = _Show(cli)
    server = EmbeddedServer(folder, config)
    done = False
    # Ended from outside, the demo still ends its server.
    previous = signal.signal(signal.SIGTERM, _end)
    try:
        show.step("A server of its own", f"python {shlex.join(server.command[1:])}")
        started = time.monotonic()
        with server.client() as mip:
            found = mip.capabilities()
            show.fact("ready_seconds", round(time.monotonic() - started, 2))
            show.line(f"{found.server_name} {found.server_version}, MIP {found.protocol_version}, no key, no telemetry")
            for notice in found.notices:
                show.line(f"notice: {notice}")
            _tour(show, mip, texts, query or (_QUERY if not files else _query_of(texts)))
        show.step("What it took", "server, command line and embedder, all in this environment")
        size, packages = _install_size()
        show.fact("install_bytes", size)
        show.line(f"installed: {size / 1e6:.0f} MB in site-packages, {packages} distributions")
        _go_on(show, server if keep else None)
        done = True
    finally:
        signal.signal(signal.SIGTERM, previous)
        if not (keep and done):
            server.stop()
            if cli.options.data is None:
                shutil.rmtree(folder, ignore_errors=True)
    cli.emit(show.facts, lambda: None)


def _end(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


class _Show:
    """Prints the steps for people and collects facts for programs."""

    def __init__(self, cli: Cli) -> None:
        self._cli = cli
        self._number = 0
        self.facts: dict[str, Any] = {}

    def step(self, title: str, explanation: str) -> None:
        self._number += 1
        if not self._cli.json:
            heading = Text(f"\n{self._number}. {title}", style="bold cyan")
            heading.append(f"  {clean(explanation)}", style="dim not bold")
            self._cli.out.print(heading, soft_wrap=True)

    def line(self, text: str) -> None:
        if not self._cli.json:
            width = self._cli.out.width if self._cli.out.is_terminal else 118
            text = clean(" ".join(text.split()))
            self._cli.out.print(Text("   " + (text if len(text) < width - 4 else text[: width - 5] + "…")))

    def command(self, text: str) -> None:
        if not self._cli.json:
            self._cli.out.print(Text("   " + text, style="green"), soft_wrap=True)

    def fact(self, key: str, value: Any) -> None:
        self.facts[key] = value


def _tour(show: _Show, mip: Client, texts: list[Path], query: str) -> None:
    cube = mip.cubes.create("demo", display_name="The demo's cube")
    show.step("Remember", f"{len(texts)} files, a memory for each paragraph, with file and lines as provenance")
    started = time.monotonic()
    pieces = (piece for path in texts for piece in read_pieces(path, name=_shown(path)))
    summary = cube.add_many(pieces, cause="demo: remember the documents")
    seconds = time.monotonic() - started
    show.fact("memories", summary.added)
    show.fact("add_seconds", round(seconds, 2))
    show.line(
        f"{summary.added} memories in {seconds:.1f} s, commits: {len(summary.commits)}, each durable when it returned"
    )

    show.step("Search", f'memos search demo "{query}" --explain')
    best = _search(show, cube, query)

    before = cube.refresh().revision
    show.step("Update", f"a new version of {best.id}; the old one stays in the history")
    updated = cube.update(best, f"{best.text}\n\n{_ADDITION}", etag=best.etag, cause="demo: a correction")
    for version in cube.history(updated):
        show.line(f"revision {version.revision}: {len(version.text)} characters, etag {version.etag[:12]}")

    show.step("Roll back", f"memos cube rollback demo {before}; a rollback is itself a commit, nothing is lost")
    rolled = cube.rollback(before, cause="demo: undo the correction")
    restored = cube.get(updated).text == best.text
    show.fact("rolled_back", restored)
    show.line(f"revision {rolled.commit.revision} holds what revision {before} held: {'yes' if restored else 'NO'}")
    past = cube.search(_ADDITION, as_of=updated.revision, top_k=1)
    seen = bool(past) and _ADDITION in past[0].text
    show.line(f"and a search as of revision {updated.revision} still finds the correction: {'yes' if seen else 'NO'}")
    show.fact("found_as_of", seen)

    show.step("The log", "memos cube log demo")
    for commit in cube.log():
        who = commit.principal.removeprefix("principals/")
        digest = commit.digest.hex()[:12]
        show.line(f"{commit.revision:>3}  {when(commit.create_time)}  {who}  {digest}  {commit.cause}")

    show.step(
        "Verify", "the chain is recomputed and replayed against what is stored, from the head this client remembers"
    )
    verdict = cube.verify()
    show.fact("verified", verdict.valid)
    show.fact("head_digest", verdict.head_digest.hex())
    verdict_text = "verified" if verdict else "DOES NOT VERIFY"
    show.line(f"{verdict_text}: {verdict.commits_checked} commits, head {verdict.head_digest.hex()}")
    if not verdict:
        raise DataLoss("the demo's cube does not verify", reason="DATA_CORRUPT")

    show.step("Who did what", "memos audit; changes of memories stand in the log, what concerns access and cubes here")
    for number, event in enumerate(mip.access.audit(page_size=10)):
        if number == 5:
            break
        who = event.principal.removeprefix("principals/") or "(nobody)"
        show.line(
            f"{when(event.time)}  {who}  {event.method.removeprefix('/mip.v1.')}  {event.resource}  {event.outcome}"
        )


def _search(show: _Show, cube: Cube, query: str) -> Memory:
    started = time.monotonic()
    found = cube.search(query, top_k=3, explain=True)
    show.fact("search_seconds", round(time.monotonic() - started, 4))
    for hit in found:
        entry = hit.memory.provenance[0] if hit.memory.provenance else None
        place = f"{entry.source}:{entry.line_start}-{entry.line_end}" if entry else ""
        channels = hit.explanation.channels if hit.explanation else []
        why = ", ".join(f"{item.channel} #{item.rank} ({item.score:.3f})" for item in channels)
        show.line(f"{hit.score:.3f}  {place}  {why}")
        show.line(f"       {hit.text}")
    for notice in found.notices:
        show.line(f"notice: {notice}")
    if not found:
        raise UsageError(f"nothing is found for {query!r}", reason="NOT_FOUND", remedy="Try other words with --query.")
    return found[0].memory


def _program() -> str:
    """Returns how the reader's shell calls this program: by its name only where that finds this very one."""
    script = Path(sysconfig.get_path("scripts")) / "memos"
    found = shutil.which("memos")
    if not script.exists() or (found and Path(found).resolve() == script.resolve()):
        return "memos"
    return shlex.quote(_shown(script))


def _go_on(show: _Show, kept: EmbeddedServer | None) -> None:
    memos = _program()
    show.step("Go on", "the same with any gRPC client; reflection is on")
    if kept is None:
        address, flags = "127.0.0.1:7600", ""
        show.command(f"{memos} serve &")
    else:
        address, flags = kept.address, f" --data {kept.data}"
        show.fact("address", address)
        show.fact("pid", kept.process.pid)
        show.line(f"the server goes on at {address} with pid {kept.process.pid}; end it with: kill {kept.process.pid}")
    call = f'grpcurl -plaintext -H "authorization: Bearer $({memos} token show{flags})"'
    show.command(f"{call} {address} list")
    show.command(f'{call} -d \'{{"cube_id": "notes"}}\' {address} mip.v1.CubeService/CreateCube')
    memory = '{"parent": "cubes/notes", "memories": [{"plaintext": {"text": "Ada prefers tea."}}]}'
    show.command(f"{call} -d '{memory}' {address} mip.v1.MemoryService/AddMemories")
    search = '{"cubes": ["cubes/notes"], "query": "What does Ada drink?"}'
    show.command(f"{call} -d '{search}' {address} mip.v1.MemoryService/SearchMemories")


def _texts(files: list[Path] | None) -> list[Path]:
    """Returns the files to remember.

    Raises:
        UsageError: There are none.
    """
    if files:
        return files
    here = Path.cwd()
    found = [here / "README.md", *sorted((here / "docs").rglob("*.md"))]
    texts = [path for path in found if path.is_file() and path.stat().st_size]
    if not texts:
        raise UsageError(
            "there is no README.md and no docs/ here", reason="FILE_UNREADABLE", remedy="Name text files to remember."
        )
    return texts


def _shown(path: Path) -> str:
    """Returns the path as a reader of the current folder would write it."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


def _query_of(texts: list[Path]) -> str:
    """Returns words of the text's middle, so that a search of unknown text finds something to show."""
    pieces = [piece["text"] for path in texts for piece in read_pieces(path)]
    if not pieces:
        raise UsageError("the files hold no text", reason="FIELD_REQUIRED", remedy="Name files with text in them.")
    words = str(pieces[len(pieces) // 2]).split("\n\n")[-1].split()
    return " ".join(words[:8])


def _install_size() -> tuple[int, int]:
    """Returns the bytes of this environment's site-packages and the number of distributions in it."""
    folders = {os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    size = sum(_sizes(folders))
    return size, sum(1 for _ in importlib.metadata.distributions(path=sorted(folders)))


def _sizes(folders: set[str]) -> Iterator[int]:
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(root, name)
                if not os.path.islink(path):
                    yield os.stat(path).st_size
