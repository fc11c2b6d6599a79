"""Runs what the documentation tells a reader to type.

Of each page the ```sh and ```python blocks run in order, in one shell, beside one real server with a data folder of its
own; a ```text or ```json block right after one is what it must print, with `…` for anything within a line and a line of
`…` alone for any lines. What cannot run stands under an HTML comment `<!-- not run: reason -->`. The port 7600 is
replaced by a free one. Blocks that need grpcurl run where it is installed; `.ci/run` installs it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import engines
from tests.support.ports import free_port
from tools.engines import background

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
TOOLS = [Path(sys.executable).parent, ROOT / ".tools" / "bin"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (\S.*?) -->\s*\Z")
# What a page says of the tools that it needs.
MARKS = {
    "grpcurl": [pytest.mark.grpcurl],
    "make engines": [pytest.mark.engines, pytest.mark.long, pytest.mark.timeout(420)],
}
# Blocks that are read, not typed.
SHOWN = {"text", "json", "mermaid", "toml", "yaml", "ini", "proto", "abnf"}


class Block(NamedTuple):
    """A fenced block: the line it begins in, its language, its text, why it is not run, and what it must print."""

    line: int
    language: str
    text: str
    not_run: str
    expected: str | None


def blocks_of(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page; those that are the output of another are its `expected`."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        between = text[end : match.start()]
        end = match.end()
        language, body = match[1], match[2]
        if language in {"text", "json"} and not between.strip() and found and found[-1].language in {"sh", "python"}:
            found[-1] = found[-1]._replace(expected=body)
            continue
        reason = NOT_RUN.search(between)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(line, language, body, reason[1] if reason else "", None))
    return found


def runnable(page: Path) -> list[Block]:
    """Returns the blocks of a page that run."""
    return [block for block in blocks_of(page) if block.language in {"sh", "python"} and not block.not_run]


def before_grpcurl(blocks: list[Block]) -> list[Block]:
    """Returns the blocks before the first that needs grpcurl."""
    needing = [index for index, block in enumerate(blocks) if "grpcurl" in block.text]
    return blocks[: needing[0]] if needing else blocks


def expected_pattern(expected: str) -> re.Pattern[str]:
    """Returns the expression that the output must match as a whole."""
    parts = []
    for line in expected.strip("\n").split("\n"):
        if line.strip() == "…":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            parts.append(".*?".join(re.escape(piece.rstrip()) for piece in line.rstrip().split("…")) + r"[ \t]*\n")
    return re.compile("".join(parts))


def name_of(page: Path) -> str:
    """Returns how a page is called in test ids."""
    return str(page.relative_to(ROOT))


class Server:
    """A real server on a free port, with a data folder and a working folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Starts the server and waits until it answers."""
        self.port = free_port()
        self.home = folder
        self.work = folder / "work"
        self.work.mkdir()
        # The reader stands in a checkout; what a command writes must not land in this one.
        for entry in ROOT.iterdir():
            if entry.name != ".git":
                (self.work / entry.name).symlink_to(entry)
        # What `make` tells those that it started is nothing for the makes that a page types.
        foreign = ("MEMOS_", "XDG_", "MAKE", "MFLAGS")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        self.env = {
            **kept,
            "HOME": str(folder),
            "MEMOS_DATA": str(folder / "data"),
            "PATH": os.pathsep.join([*map(str, TOOLS), os.environ["PATH"]]),
            "NO_COLOR": "1",
            "COLUMNS": "120",
            "TERM": "dumb",
        }
        self.log = folder / "server.log"
        command = [sys.executable, "-m", "memos_server", "serve"]
        command += ["--data", str(folder / "data"), "--listen", f"127.0.0.1:{self.port}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.env, cwd=self.work)
        self._wait(60.0)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return
            time.sleep(0.1)
        self.stop()
        pytest.fail(f"the server does not answer:\n{self.log.read_text(errors='replace')[-4000:]}")

    def stop(self) -> int:
        """Ends the server and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(10)

    def run(self, page: Path, blocks: list[Block], timeout_s: float = 150.0) -> None:
        """Runs blocks of a page in one shell, and fails with the first that fails or prints something else."""
        lines = ["set -euo pipefail"]
        for number, block in enumerate(blocks):
            suffix = "sh" if block.language == "sh" else "py"
            script = self.work / f".block{number}.{suffix}"
            script.write_text(self._on_port(block.text), encoding="utf-8")
            command = f"source {script.name}" if suffix == "sh" else f"python {script.name}"
            lines.append(f"{command} >.block{number}.out 2>.block{number}.err; touch .block{number}.done")
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            cwd=self.work,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        for number, block in enumerate(blocks):
            where = f"{name_of(page)}, line {block.line}"
            output = self._read(f".block{number}.out")
            if not (self.work / f".block{number}.done").exists():
                errors = self._read(f".block{number}.err")
                pytest.fail(
                    f"{where}: the block fails\n{block.text}\n--- prints\n{output}\n--- and\n{errors}{done.stderr}"
                )
            if block.expected is not None:
                printed = "\n".join(line.rstrip() for line in output.strip("\n").split("\n")) + "\n"
                if not expected_pattern(self._on_port(block.expected)).fullmatch(printed):
                    pytest.fail(f"{where}: the block prints\n{printed}\n--- but the page says\n{block.expected}")

    def _on_port(self, text: str) -> str:
        return re.sub(r"\b7600\b", str(self.port), text)

    def _read(self, name: str) -> str:
        path = self.work / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server for one page; it must end well when asked to."""
    running = Server(tmp_path)
    yield running
    assert running.stop() == 0, running.log.read_text(errors="replace")[-4000:]


def has_grpcurl() -> bool:
    """Returns whether grpcurl is installed; where MEMOS_REQUIRE_TOOLS is set, as .ci/run does, it must be."""
    found = shutil.which("grpcurl", path=os.pathsep.join([*map(str, TOOLS), os.environ["PATH"]])) is not None
    if not found and os.environ.get("MEMOS_REQUIRE_TOOLS"):
        pytest.fail("grpcurl is not installed")
    return found


def with_marks(page: Path) -> Any:
    """Returns the page as a parameter, marked when it needs grpcurl or engines."""
    typed = "\n".join(block.text for block in runnable(page))
    marks = [mark for word, found in MARKS.items() if word in typed for mark in found]
    return pytest.param(page, marks=marks, id=name_of(page))


@pytest.mark.parametrize("page", [with_marks(page) for page in PAGES if runnable(page)])
def test_the_commands_of_a_page_do_what_it_says(page: Path, server: Server) -> None:
    blocks = runnable(page)
    first = before_grpcurl(blocks)
    if len(first) < len(blocks) and not has_grpcurl():
        server.run(page, first)
        pytest.skip(f"not run: grpcurl is not installed (from line {blocks[len(first)].line} on)")
    over_engines = any("make engines" in block.text for block in blocks)
    if over_engines:
        engines.need(*background.SECTIONS)
    try:
        server.run(page, blocks, 350.0 if over_engines else 150.0)
    finally:
        # A page that fails midway has not stopped what it started.
        for engine in background.engines(server.home / "memos-engines"):
            engine.kill()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_runs_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page):
        where = f"{name_of(page)}, line {block.line}"
        assert block.language in {"sh", "python", "console"} | SHOWN, f"{where}: a block of '{block.language}'"
        assert (block.language == "console") <= bool(block.not_run), f"{where}: nothing says why it is not run"


def test_an_ellipsis_stands_for_anything_within_its_line_and_alone_for_any_lines() -> None:
    pattern = expected_pattern("revision … of …\n…\nend\n")
    assert pattern.fullmatch("revision 3 of notes\nend\n")
    assert pattern.fullmatch("revision 3 of notes\nmore\nand more\nend\n")
    assert not pattern.fullmatch("revision 3\nof notes\nend\n")
    assert not pattern.fullmatch("revision 3 of notes\nend\nmore\n")
    assert expected_pattern("1 + 1 = (2)").fullmatch("1 + 1 = (2)\n")


def test_a_block_after_a_command_is_what_it_must_print(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Type:\n\n```sh\necho hi\n```\n\n```text\nhi\n```\n\nwords\n\n<!-- not run: slow -->\n```console\nmake\n```\n"
    )
    assert blocks_of(page) == [
        Block(3, "sh", "echo hi\n", "", "hi\n"),
        Block(14, "console", "make\n", "slow", None),
    ]
