"""Makes the engines from the Go and Maven registries, once, into .tools/engines. Needs Go, Maven and a JDK 17 or later.

A stamp tells what was made in which version, so that building again does nothing, and a new version is built anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
HOME: Final = Path(os.environ.get("MEMOS_ENGINES_HOME") or ROOT / ".tools" / "engines")
"""Where the engines are made."""

NEO4J_VERSION: Final = "5.26.12"
"""As in neo4j/pom.xml, the newest of the 5.26 LTS line when it was chosen."""

NEO4J_SOURCES: Final = Path(__file__).resolve().parent / "neo4j"
_TRIES: Final = 2
_PAUSE_S: Final = 5.0


class NotBuilt(Exception):
    """An engine has not been made, or cannot be made here; the text says how it is."""


class GoTool(NamedTuple):
    """A program of the Go registry.

    Attributes:
        package: What `go install` takes.
        version: A fixed one.
        binary: What Go calls the result.
    """

    package: str
    version: str
    binary: str


GO_TOOLS: Final[Mapping[str, GoTool]] = {
    "weaviate": GoTool("github.com/weaviate/weaviate/cmd/weaviate-server", "v1.35.2", "weaviate-server"),
    "s3": GoTool("github.com/versity/versitygw/cmd/versitygw", "v1.8.0", "versitygw"),
    "toxiproxy": GoTool("github.com/Shopify/toxiproxy/v2/cmd/server", "v2.5.0", "server"),
}
ENGINES: Final = ("neo4j", *GO_TOOLS)
"""Everything that can be made."""


def program(name: str) -> Path:
    """Returns the path of a Go program, made or not."""
    return HOME / "bin" / name


def neo4j_home() -> Path:
    """Returns the folder that holds Neo4j's libraries (`lib`) and the class that runs it (`classes`)."""
    return HOME / "neo4j"


def built(name: str) -> bool:
    """Tells whether an engine is made, in the version that is wanted."""
    stamp = _stamp(name)
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _wanted(name)


def require(*names: str) -> None:
    """Passes when the engines are made.

    Raises:
        NotBuilt: One is not.
    """
    missing = [name for name in names if not built(name)]
    if missing:
        raise NotBuilt(f"engines are not built ({', '.join(missing)}); make test-engines builds them")


def build(names: tuple[str, ...] = ENGINES, tell: Callable[[str], None] = print) -> None:
    """Makes what is not made yet.

    Args:
        names: Which engines.
        tell: Gets a line at the begin and the end of each.

    Raises:
        NotBuilt: A tool is missing, or a build failed twice; the text has the last lines of what it printed.
    """
    for name in names:
        if built(name):
            tell(f"{name}: {_wanted(name).splitlines()[0]} is there")
            continue
        start = time.monotonic()
        tell(f"{name}: building {_wanted(name).splitlines()[0]}, which takes minutes the first time")
        _stamp(name).unlink(missing_ok=True)
        if name == "neo4j":
            _build_neo4j()
        else:
            _build_go(name, GO_TOOLS[name])
        _stamp(name).parent.mkdir(parents=True, exist_ok=True)
        _stamp(name).write_text(_wanted(name), encoding="utf-8")
        tell(f"{name}: built in {time.monotonic() - start:.0f} s")


def java() -> str:
    """Returns the Java that runs Neo4j: JAVA_HOME's, or the one on the path.

    Raises:
        NotBuilt: There is none.
    """
    return _tool("java")


def _build_go(name: str, tool: GoTool) -> None:
    go = _tool("go")
    staging = HOME / "staging"
    environment = {"GOBIN": str(staging), "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}
    _twice([go, "install", f"{tool.package}@{tool.version}"], HOME, environment)
    program(name).parent.mkdir(parents=True, exist_ok=True)
    (staging / tool.binary).replace(program(name))
    shutil.rmtree(staging, ignore_errors=True)


def _build_neo4j() -> None:
    maven, javac, home = _tool("mvn"), _tool("javac"), neo4j_home()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    scope = ["-DincludeScope=runtime", f"-DoutputDirectory={home / 'lib'}"]
    _twice([maven, "-q", "-B", "-f", str(NEO4J_SOURCES / "pom.xml"), copy, *scope], HOME, {})
    sources = [str(path) for path in sorted(NEO4J_SOURCES.glob("*.java"))]
    _run([javac, "--release", "17", "-cp", str(home / "lib" / "*"), "-d", str(home / "classes"), *sources], HOME, {})


def _twice(command: list[str], cwd: Path, environment: Mapping[str, str]) -> None:
    """Runs what uses the network, which may fail once."""
    for left in reversed(range(_TRIES)):
        try:
            return _run(command, cwd, environment)
        except NotBuilt:
            if not left:
                raise
            time.sleep(_PAUSE_S)
    return None


def _run(command: list[str], cwd: Path, environment: Mapping[str, str]) -> None:
    cwd.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = "\n".join(done.stdout.strip().splitlines()[-20:])
        raise NotBuilt(f"{Path(command[0]).name} {command[1]} ended with status {done.returncode}:\n{lines}")


def _tool(name: str) -> str:
    home = os.environ.get("JAVA_HOME")
    if home and name in ("java", "javac") and (Path(home) / "bin" / name).is_file():
        return str(Path(home) / "bin" / name)
    found = shutil.which(name)
    if found is None:
        package = {"javac": "a JDK, 17 or later", "java": "a JDK, 17 or later", "mvn": "Maven", "go": "Go"}[name]
        raise NotBuilt(f"{name} is not installed, which the engines are built or run with; install {package}")
    return found


def _stamp(name: str) -> Path:
    return HOME / "stamps" / name


def _wanted(name: str) -> str:
    """What the stamp of a finished build holds: the version, and whatever else the build is made of."""
    if name == "neo4j":
        sources = [NEO4J_SOURCES / "pom.xml", *sorted(NEO4J_SOURCES.glob("*.java"))]
        return f"org.neo4j:neo4j {NEO4J_VERSION}\n" + "".join(path.read_text(encoding="utf-8") for path in sources)
    return f"{GO_TOOLS[name].package} {GO_TOOLS[name].version}\n"
