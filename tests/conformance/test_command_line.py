"""The command as a person or a build runs it: exit statuses, reports, and servers that it starts itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import mip_conformance
import pytest
from mip_conformance import cli
from mip_conformance import target as target_module
from mip_conformance.target import TargetError, started
from rich.console import Console

from tests.conformance.fake_servers import by_rpc, capabilities, serving, wire

CASES = """
name: cubes
level: core
cases:
  - name: found
    requirements: [RPC:CubeService.GetCube]
    steps:
      - call: {rpc: CubeService.GetCube, request: {name: cubes/a}, expect: {response: {cube: {name: cubes/a}}}}
"""
REQUIREMENTS = "requirements: [{id: 'RPC:CubeService.GetCube', level: core}]\n"
KNOWN = "known_failures: [{check: cubes/found, reason: it is late, link: 'https://example.com/1'}]\n"
GOOD = by_rpc({"CubeService.GetCube": wire("GetCubeResponse", cube={"name": "cubes/a"})})
BAD = by_rpc({"CubeService.GetCube": wire("GetCubeResponse", cube={"name": "cubes/b"})})


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package as it is installed, with a suite of one case: a folder for PYTHONPATH."""
    copy = tmp_path / "site" / "mip_conformance"
    shutil.copytree(Path(mip_conformance.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__", "_data"))
    for folder in ("cases", "requirements"):
        (copy / "_data" / folder).mkdir(parents=True)
    (copy / "_data" / "cases" / "cubes.yaml").write_text(CASES, encoding="utf-8")
    (copy / "_data" / "requirements" / "core.yaml").write_text(REQUIREMENTS, encoding="utf-8")
    sentences = {"RPC:CubeService.GetCube": {"keyword": "MUST", "page": "", "sentence": "It returns a cube."}}
    (copy / "_data" / "requirements" / "sentences.json").write_text(json.dumps(sentences), encoding="utf-8")
    return copy.parent


def command(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m mip_conformance`."""
    environment = {key: value for key, value in os.environ.items() if key not in ("MIP_TOKEN", "COLUMNS")}
    return subprocess.run(
        [sys.executable, "-m", "mip_conformance", *arguments],
        env=environment | {"PYTHONPATH": str(package), "COLUMNS": "200", "TERM": "dumb"},
        cwd=package,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_server_that_holds_to_everything_ends_with_0_and_every_report(package: Path, tmp_path: Path) -> None:
    paths = {form: tmp_path / f"report.{form}" for form in ("json", "junit", "html", "badge")}
    options = [word for form, path in paths.items() for word in (f"--{form}", str(path))]
    with serving(GOOD, capabilities()) as target:
        done = command(package, "run", "--target", target.address, *options)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "fake 1 at" in done.stdout
    assert "1 checks in" in done.stdout
    assert "PASSED" in done.stdout
    found = json.loads(paths["json"].read_text(encoding="utf-8"))
    assert found["passed"] is True
    assert found["levels"]["core"]["verdict"] == "passed"
    assert found["requirements"][0]["result"] == "passed"
    assert paths["junit"].read_text(encoding="utf-8").startswith("<?xml")
    assert paths["html"].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert paths["badge"].read_text(encoding="utf-8").startswith("<svg")


def test_a_failure_ends_with_1_and_its_message_and_a_listed_one_with_0(package: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.yaml"
    known.write_text(KNOWN, encoding="utf-8")
    with serving(BAD, capabilities()) as target:
        done = command(package, "run", "--target", target.address)
        assert done.returncode == 1, done.stderr
        assert "failed cubes/found (RPC:CubeService.GetCube)" in done.stdout
        assert "response.cube.name is 'cubes/b' instead of 'cubes/a'" in done.stdout
        # No level passes with known failures alone, so neither does the run.
        done = command(package, "run", "--target", target.address, "--known-failing", str(known))
        assert done.returncode == 1
    with serving(GOOD, capabilities()) as target:
        done = command(package, "run", "--target", target.address, "--known-failing", str(known))
        assert done.returncode == 1
        assert "cubes/found does not fail any more (passed); take it off the list" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Name the server with --target HOST:PORT, or one to start with --command."),
        (["--target", "a:1", "--command", "b"], "Name the server"),
        (["--target", "127.0.0.1:1", "--level", "moon"], "There is no level moon; there are core, history"),
        (["--target", "127.0.0.1:1", "--token-file", "/nowhere/token"], "/nowhere/token cannot be read"),
        (["--target", "127.0.0.1:1", "--known-failing", "/nowhere/known"], "The suite is broken: known"),
        (["--nonsense"], "No such option"),
    ],
)
def test_wrong_use_ends_with_2_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    # In this process: what is wrong is found before the suite is read.
    monkeypatch.setattr(sys, "argv", ["mip-conformance", "run", *arguments])
    monkeypatch.setattr(cli, "_err", Console(stderr=True, width=200))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_pattern_that_matches_nothing_ends_with_2(package: Path) -> None:
    with serving(GOOD, capabilities()) as target:
        done = command(package, "run", "--target", target.address, "--only", "cube/*")
        assert (done.returncode, "No check of these levels matches --only." in done.stderr) == (2, True)
        done = command(package, "run", "--target", target.address, "--only", "RPC:CubeService.GetCube")
        assert (done.returncode, "partial" in done.stdout) == (0, True)


def test_a_broken_file_of_the_suite_ends_with_2(package: Path) -> None:
    (package / "mip_conformance" / "_data" / "cases" / "cubes.yaml").write_text("name: [", encoding="utf-8")
    done = command(package, "list")
    assert done.returncode == 2
    assert "The suite is broken: cubes.yaml: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_that_cannot_be_written_ends_with_2(package: Path) -> None:
    with serving(GOOD, capabilities()) as target:
        done = command(package, "run", "--target", target.address, "--html", "/nowhere/report.html")
    assert (done.returncode, "/nowhere/report.html cannot be written" in done.stderr) == (2, True)


def test_checks_and_requirements_are_listed(package: Path) -> None:
    done = command(package, "list", "--json")
    assert [row["name"] for row in json.loads(done.stdout)] == ["cubes/found"]
    done = command(package, "requirements")
    assert (done.returncode, "RPC:CubeService.GetCube MUST" in done.stdout) == (0, True)
    (package / "mip_conformance" / "_data" / "requirements" / "core.yaml").write_text("", encoding="utf-8")
    done = command(package, "requirements")
    assert done.returncode == 2
    assert "gap RPC:CubeService.GetCube has no line in conformance/requirements/" in done.stderr


# Servers that the suite starts.


def program(tmp_path: Path, body: str) -> str:
    """Returns a command that runs a program in Python."""
    path = tmp_path / "server.py"
    path.write_text(textwrap.dedent(body), encoding="utf-8")
    return f"{sys.executable} {path}"


GOOD_SERVER = """
import json, sys
sys.path.insert(0, {root!r})
from tests.conformance.fake_servers import by_rpc, capabilities, serving, wire
asked = json.loads(sys.stdin.readline())
assert asked["listen"] == "127.0.0.1:0" and len(asked["token"]) > 20
with serving(by_rpc({{"CubeService.GetCube": wire("GetCubeResponse", cube={{"name": "cubes/a"}})}}),
             capabilities()) as target:
    print(json.dumps({{"address": target.address}}), flush=True)
    sys.stdin.read()
open({ended!r}, "w").close()
"""


def test_a_command_starts_the_server_and_its_input_ends_it(package: Path, tmp_path: Path) -> None:
    root, ended = str(Path(__file__).resolve().parents[2]), tmp_path / "ended"
    server = program(tmp_path, GOOD_SERVER.format(root=root, ended=str(ended)))
    done = command(package, "run", "--command", server)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert ended.exists()


def test_a_command_that_starts_no_server_ends_with_3(package: Path) -> None:
    done = command(package, "run", "--command", f"{sys.executable} -c 'raise SystemExit(7)'")
    assert (done.returncode, "the command named no address: it ended with status 7" in done.stderr) == (3, True)
    assert "Traceback" not in done.stderr


def test_a_command_that_is_not_there_is_told_so() -> None:
    with pytest.raises(TargetError, match="the command cannot be started"), started("/nowhere/server"):
        pass


def test_a_command_that_goes_on_writing_goes_on_serving(tmp_path: Path) -> None:
    body = """
    import json, sys
    sys.stdin.readline()
    print(json.dumps({"address": "127.0.0.1:1"}), flush=True)
    for number in range(20_000):
        print("a line of a server that tells what it does", number, flush=True)
    open(__file__ + ".written", "w").close()
    sys.stdin.read()
    """
    with started(program(tmp_path, body)):
        until = time.monotonic() + 30
        while not (tmp_path / "server.py.written").exists():
            assert time.monotonic() < until, "its output is not read"
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise SystemExit(7)", "it ended with status 7"),
        ("print('listening on 7600', flush=True)", "no JSON with an address: listening on 7600"),
        ("print('[]', flush=True)", "no JSON with an address"),
        ("""print('{"port": 1}', flush=True)""", "no JSON with an address"),
        ("print('\\\\xff' * 9, flush=True)", "no JSON with an address"),
        (
            "import sys; sys.stdout.buffer.write(b'\\xff\\n'); sys.stdout.flush()",
            "named no address|no JSON with an address",
        ),
        ("import sys; sys.stdin.read()", "it wrote nothing within 1 s"),
        ("import sys; print(flush=True); sys.stdin.readline(); sys.stdin.read()", "its first line is empty"),
    ],
)
def test_a_command_that_says_no_address_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str
) -> None:
    monkeypatch.setattr(target_module, "_START_S", 1.0 if body == "import sys; sys.stdin.read()" else 30.0)
    with pytest.raises(TargetError, match=told), started(program(tmp_path, body)):
        pass


def test_a_command_with_a_token_of_its_own_is_called_with_it(tmp_path: Path) -> None:
    body = """
    import json, sys
    sys.stdin.readline()
    print(json.dumps({"address": "127.0.0.1:1", "token": "mine"}), flush=True)
    sys.stdin.read()
    """
    with started(program(tmp_path, body)) as target:
        assert (target.address, target.token) == ("127.0.0.1:1", "mine")


def test_a_command_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "_STOP_S", 0.5)
    body = """
    import json, os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.readline()
    print(json.dumps({"address": f"127.0.0.1:{os.getpid()}"}), flush=True)
    time.sleep(600)
    """
    with started(program(tmp_path, body)) as target:
        pid = int(target.address.rpartition(":")[2])
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
