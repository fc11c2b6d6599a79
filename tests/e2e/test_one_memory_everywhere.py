"""The same memory written through CLI, SDK (sync and async) and grpcurl reads back equal through all the others."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memos_sdk import AsyncClient, Client
from tests.e2e.process import ServerProcess

TEXT = "Grüße: she said “tea”, 10 € — 東京"
TAGS = ["drinks", "travel"]
LABELS = {"room": "kitchen"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server process."""
    process = ServerProcess(tmp_path_factory.mktemp("e2e") / "data")
    yield process
    assert process.stop() == 0


def cli(server: ServerProcess, *arguments: str) -> Any:
    """Runs `memos … --json` and returns what it prints."""
    memos = Path(sys.executable).with_name("memos")
    command = [str(memos), "--target", server.address, "--token", server.token, "--json", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def grpcurl(server: ServerProcess, method: str, request: dict[str, Any]) -> Any:
    """Calls a method by reflection."""
    found = shutil.which("grpcurl")
    if found is None:
        if os.environ.get("MEMOS_REQUIRE_TOOLS"):
            pytest.fail("grpcurl is not installed, and this run requires it")
        pytest.skip("not run: grpcurl is not installed")
    header = f"authorization: Bearer {server.token}"
    command = [found, "-plaintext", "-H", header, "-d", json.dumps(request), server.address, f"mip.v1.{method}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def readings(server: ServerProcess, name: str) -> dict[str, tuple[str, list[str], dict[str, str], str]]:
    """Returns text, tags, labels and commitment of a memory as each client reads it."""
    _, cube, _, memory_id = name.split("/")
    by_cli = cli(server, "get", cube, memory_id)
    with Client(server.address, token=server.token) as mip:
        by_sdk = mip.cube(cube).get(memory_id)
    read = {
        "cli": (
            by_cli["plaintext"]["text"],
            list(by_cli["tags"]),
            {label["key"]: label["value"] for label in by_cli["labels"]}
            if isinstance(by_cli["labels"], list)
            else dict(by_cli["labels"]),
            by_cli["commitment"],
        ),
        "sdk": (by_sdk.text, list(by_sdk.tags), dict(by_sdk.labels), by_sdk.message.commitment.hex()),
    }
    if shutil.which("grpcurl") or os.environ.get("MEMOS_REQUIRE_TOOLS"):
        raw = grpcurl(server, "MemoryService/GetMemory", {"name": name})["memory"]
        labels = {label["key"]: label["value"] for label in raw["labels"]}
        commitment = base64.b64decode(raw["commitment"]).hex()
        read["grpcurl"] = (raw["plaintext"]["text"], raw["tags"], labels, commitment)
    return read


def assert_equal_everywhere(server: ServerProcess, name: str) -> None:
    """Checks that all clients read the same."""
    read = readings(server, name)
    assert len({str(reading) for reading in read.values()}) == 1, read
    assert read["sdk"][:3] == (TEXT, TAGS, LABELS)


def test_written_by_the_cli(server: ServerProcess) -> None:
    cli(server, "cube", "create", "by-cli")
    added = cli(server, "add", "by-cli", TEXT, "--tag", "travel", "--tag", "drinks", "--label", "room=kitchen")
    name = added["memories"][0]["name"] if "memories" in added else added["name"]
    assert_equal_everywhere(server, name)


def test_written_by_the_sdk(server: ServerProcess) -> None:
    with Client(server.address, token=server.token) as mip:
        memory = mip.cubes.create("by-sdk").add(TEXT, tags=["travel", "drinks"], labels=LABELS)
    assert_equal_everywhere(server, memory.name)


async def test_written_by_the_async_sdk(server: ServerProcess) -> None:
    async with AsyncClient(server.address, token=server.token) as mip:
        cube = await mip.cubes.create("by-async")
        memory = await cube.add(TEXT, tags=["travel", "drinks"], labels=LABELS)
    assert_equal_everywhere(server, memory.name)


@pytest.mark.grpcurl
def test_written_by_grpcurl_with_the_whole_round_trip(server: ServerProcess) -> None:
    assert grpcurl(server, "CubeService/CreateCube", {"cube_id": "by-grpcurl"})["cube"]["revision"] == "1"
    parent = "cubes/by-grpcurl"
    memory = {"plaintext": {"text": TEXT}, "tags": TAGS, "labels": [{"key": "room", "value": "kitchen"}]}
    added = grpcurl(server, "MemoryService/AddMemories", {"parent": parent, "memories": [memory]})
    name = added["memories"][0]["name"]
    assert_equal_everywhere(server, name)
    found = grpcurl(server, "MemoryService/SearchMemories", {"cubes": [parent], "query": "tea"})
    assert found["hits"][0]["memory"]["name"] == name
    change = {"memory": {"name": name, "plaintext": {"text": "coffee"}}, "update_mask": {"paths": ["plaintext.text"]}}
    assert grpcurl(server, "MemoryService/UpdateMemory", change)["memory"]["plaintext"]["text"] == "coffee"
    rolled = grpcurl(server, "CubeService/RollbackCube", {"name": parent, "to_revision": "2"})
    assert rolled["commit"]["revision"] == "4"
    assert_equal_everywhere(server, name)
    assert grpcurl(server, "CubeService/VerifyCube", {"name": parent})["valid"] is True
