"""The core flow runs through clients that nobody here wrote: grpcurl, and stubs generated for Go and for TypeScript.

The flows are in `conformance/clients/`; each is a program that ends with status 1 at the first step that does not
hold. Those for Go and TypeScript need compilers, so `make foreign-clients`, a step of `.ci/run`, builds and runs them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.process import ServerProcess

RUN = Path(__file__).resolve().parents[2] / "conformance" / "clients" / "run.sh"
STEPS = [
    "GetCapabilities",
    "CreateCube",
    "AddMemories",
    "AddMemories again with the same request_id",
    "GetMemory",
    "SearchMemories by words",
    "UpdateMemory with the etag",
    "UpdateMemory with a stale etag",
    "ListMemories page by page",
    "WatchCube from revision 1",
    "RollbackCube",
    "VerifyCube",
    "WriteBlob and ReadBlob",
    "DeleteMemories",
    "PurgeMemories",
    "DeleteCube",
    "PurgeCube",
]
# Read before a fixture takes the variables away from the tests.
BUILT = "MEMOS_FOREIGN_CLIENTS" in os.environ
REQUIRED = BUILT or "MEMOS_REQUIRE_TOOLS" in os.environ

no_compilers = pytest.mark.skipif(not BUILT, reason="not run: `make foreign-clients` builds this client and runs it")
clients = pytest.mark.parametrize(
    "client",
    [
        pytest.param("grpcurl", marks=pytest.mark.grpcurl),
        pytest.param("go", marks=no_compilers),
        pytest.param("ts", marks=no_compilers),
    ],
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server process."""
    process = ServerProcess(tmp_path_factory.mktemp("foreign") / "data")
    yield process
    assert process.stop() == 0


def run(client: str, server: ServerProcess, token: Path) -> subprocess.CompletedProcess[str]:
    """Runs the core flow through a client."""
    if client == "grpcurl" and shutil.which("grpcurl") is None:
        if REQUIRED:
            pytest.fail("grpcurl is not installed, and this run requires it")
        pytest.skip("not run: grpcurl is not installed")
    command = [str(RUN), client, server.address, str(token)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@clients
def test_every_step_of_the_core_flow_holds(client: str, server: ServerProcess) -> None:
    ran = run(client, server, server.data / "admin.token")
    closing = f"the core flow passed: {len(STEPS)} steps, 0 not declared"
    assert ran.stdout.splitlines() == [*(f"ok: {step}" for step in STEPS), closing], ran.stderr
    assert (ran.returncode, ran.stderr) == (0, "")


@clients
def test_the_first_step_that_fails_ends_the_flow(client: str, server: ServerProcess, tmp_path: Path) -> None:
    token = tmp_path / "forged.token"
    token.write_text("forged")
    ran = run(client, server, token)
    assert ran.stdout.splitlines() == ["ok: GetCapabilities"]
    assert ran.stderr.startswith("FAILED: CreateCube: ")
    assert "The token is not one that this server issued." in ran.stderr
    assert ran.returncode == 1
