"""What travels in streams, with a real server: many memories in one commit, blobs by the command line."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from memos_sdk import Aborted, AsyncClient, Client, InvalidArgument, RetryPolicy
from memos_sdk._core.blob_io import BlobSource, upload_frames
from tests.e2e.process import ServerProcess

REQUEST = "7b0ff1ae-8e5a-4a5c-9f31-0a2b3c4d5e6f"
DATA = bytes(range(256)) * 12_000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("streams") / "data")
    yield process
    process.stop()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address, data=server.data) as made:
        yield made


def test_many_memories_are_one_commit_and_their_names_are_those_that_were_promised(client: Client) -> None:
    cube = client.cubes.create("many")
    seen: list[int] = []
    items = ({"text": f"memory {number}", "tags": ["bulk"]} for number in range(2_500))
    summary = cube.add_many(items, cause="import", progress=seen.append)
    assert (summary.added, len(summary.commits), summary.commits[0].change_count) == (2_500, 1, 2_500)
    assert seen == [1_000, 2_000, 2_500]
    assert [memory.name for memory in cube.list(page_size=1_000)] == list(summary.names)
    assert cube.get(summary.names[2_499]).text == "memory 2499"
    assert cube.refresh().revision == 2
    assert cube.verify()


def test_a_repeated_import_of_another_process_adds_nothing_twice(server: ServerProcess, client: Client) -> None:
    cube = client.cubes.create("again")
    first = cube.add_many(["a", "b", "c"], request_id=REQUEST, commit_size=2)
    with Client(server.address, data=server.data) as other:
        second = other.cube("again").add_many(["a", "b", "c"], request_id=REQUEST, commit_size=2)
    assert list(first.names) == list(second.names)
    assert [commit.revision for commit in second.commits] == [2, 3]
    assert [memory.text for memory in cube.list()] == ["a", "b", "c"]
    with pytest.raises(InvalidArgument) as caught:
        cube.add_many(["a", "b", "another"], request_id=REQUEST, commit_size=3)
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_nothing_is_stored_of_an_addition_that_is_refused(client: Client) -> None:
    cube = client.cubes.create("none")
    with pytest.raises(Aborted):
        cube.add_many(["a"], expected_revision=7)
    with pytest.raises(RuntimeError):
        cube.add_many(_broken())
    assert list(cube.list()) == []
    assert cube.refresh().revision == 1


def _broken() -> Iterator[str]:
    yield from (str(number) for number in range(1_500))
    raise RuntimeError("the source is gone")


async def test_an_asynchronous_client_adds_what_comes_in_and_searches_it(server: ServerProcess) -> None:
    async def texts() -> AsyncIterator[str]:
        for number in range(1_200):
            yield f"a note about subject{number}"

    async with AsyncClient(server.address, data=server.data) as client:
        cube = await client.cubes.create("awaited")
        summary = await cube.add_many(texts())
        assert (summary.added, len(summary.commits)) == (1_200, 1)
        assert [hit.memory.name for hit in await cube.search("subject1199", top_k=1)] == [summary.names[1_199]]


def memos(server: ServerProcess, *arguments: object, status: int = 0) -> Any:
    environment = os.environ | {"XDG_STATE_HOME": str(server.data.parent / "state"), "MEMOS_DATA": str(server.data)}
    command = [sys.executable, "-m", "memos_sdk.cli.main", *map(str, arguments)]
    made = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert made.returncode == status, made.stderr.decode()
    assert b"Traceback" not in made.stderr
    return made


def test_a_blob_goes_up_and_comes_down_by_the_command_line(
    server: ServerProcess, client: Client, tmp_path: Path
) -> None:
    client.cubes.create("blobs")
    source, target = tmp_path / "in.bin", tmp_path / "out.bin"
    source.write_bytes(DATA)
    assert b"BLOB_NOT_FOUND" in memos(server, "blob", "stat", "blobs", DIGEST, status=3).stderr
    put = memos(server, "blob", "put", "blobs", source, "--media-type", "x/y", "--json").stdout
    assert json.loads(put) == {"digest": DIGEST, "size": len(DATA), "media_type": "x/y"}
    assert memos(server, "blob", "stat", "blobs", DIGEST).stdout.decode() == f"{DIGEST}  {len(DATA)} bytes\n"
    memos(server, "blob", "get", "blobs", DIGEST, target)
    assert target.read_bytes() == DATA
    assert b"is there already" in memos(server, "blob", "get", "blobs", DIGEST, target, status=2).stderr
    assert memos(server, "blob", "get", "blobs", DIGEST, "-").stdout == DATA


def test_a_download_goes_on_from_its_part_and_a_damaged_part_is_found(
    server: ServerProcess, client: Client, tmp_path: Path
) -> None:
    cube = client.cubes.create("parts")
    cube.blobs.upload(DATA)
    target, part = tmp_path / "out.bin", tmp_path / "out.bin.part"
    part.write_bytes(DATA[:1_500_000])
    memos(server, "blob", "get", "parts", DIGEST, target)
    assert target.read_bytes() == DATA
    part.write_bytes(b"damaged" + DATA[7:1_500_000])
    damaged = memos(server, "blob", "get", "parts", DIGEST, target, "--force", status=7)
    assert b"DIGEST_MISMATCH" in damaged.stderr
    assert not part.exists()
    memos(server, "blob", "get", "parts", DIGEST, target, "--force")
    assert target.read_bytes() == DATA


def test_an_upload_goes_on_where_another_process_broke_it_off(server: ServerProcess, client: Client) -> None:
    cube = client.cubes.create("broken")
    data = os.urandom(3_000_000)
    blob = BlobSource(data)

    def breaks_off() -> Iterator[bytes]:
        frames = upload_frames(cube.name, blob, 0, None)
        yield from (next(frames), next(frames), next(frames))
        raise RuntimeError("pulled the plug")

    from memos_sdk import _stubs

    with pytest.raises(RuntimeError):
        client._caller.upload(_stubs.WRITE_BLOB, breaks_off(), 30)
    arrived = cube.blobs.stat(blob.digest)
    assert not arrived.held
    sent: list[int] = []
    with Client(server.address, data=server.data, retry=RetryPolicy(max_attempts=1)) as other:
        blobs = other.cube("broken").blobs
        blobs.upload(data, progress=lambda done, total: sent.append(done))
        assert blobs.stat(blob.digest).size == 3_000_000
        assert blobs.read(blob.digest) == data
    assert sent[0] == min(3_000_000, arrived.arrived + 1_048_576)
