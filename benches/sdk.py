"""The SDK beside raw protobuf stubs, over the same channel to the same server, turn about.

    python benches/sdk.py [--quick] [--json FILE]

What the stubs do is the least that any Python client does: messages of google.protobuf (upb), gRPC, reading the text
of each memory. Cubes have no embedding model, so what is measured is the client and the record, not the embedder. The
codec alone, without a server, comes first: messages of betterproto2, of upb, and upb read by the SDK's models.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from harness.figures import Figure, machine, table
from harness.servers import MemosServer
from harness.texts import Texts

from memos_sdk import Client, Cube, Memory
from memos_sdk._gen import wire
from memos_sdk._gen.mip import v1 as generated
from memos_server._pb.mip.v1 import memory_service_pb2 as pb

SERVICE = "/mip.v1.MemoryService/"
STUBS = "raw protobuf stubs, same channel"


class Stubs:
    """The calls that a program makes without the SDK, on the SDK's own channel."""

    def __init__(self, client: Client, cube: str) -> None:
        """Shares a client's channel and token."""
        caller = client._caller
        self._channel = caller._transport._open()
        self._metadata = (("authorization", f"Bearer {caller.endpoint.token}"),)
        self.cube = cube

    def call(self, rpc: str, request: Message, response: type[Any]) -> Any:
        """Makes a unary call."""
        stub = self._channel.unary_unary(
            SERVICE + rpc,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return stub(request, metadata=self._metadata, timeout=60)

    def add_many(self, texts: list[str]) -> int:
        """Adds texts by BulkAddMemories and returns how many."""

        def frames() -> Iterator[pb.BulkAddMemoriesRequest]:
            yield pb.BulkAddMemoriesRequest(header={"parent": self.cube})
            for at in range(0, len(texts), 1000):
                frame = pb.BulkAddMemoriesRequest()
                for text in texts[at : at + 1000]:
                    memory = frame.batch.memories.add()
                    memory.plaintext.text = text
                    memory.tags.append("bench")
                yield frame
            yield pb.BulkAddMemoriesRequest(finish=True)

        stub = self._channel.stream_unary(
            SERVICE + "BulkAddMemories",
            request_serializer=pb.BulkAddMemoriesRequest.SerializeToString,
            response_deserializer=pb.BulkAddMemoriesResponse.FromString,
        )
        return int(stub(frames(), metadata=self._metadata, timeout=600).memory_count)

    def list(self) -> list[str]:
        """Returns the texts of all memories."""
        texts: list[str] = []
        token = ""
        while True:
            request = pb.ListMemoriesRequest(parent=self.cube, page_size=1000, page_token=token)
            page = self.call("ListMemories", request, pb.ListMemoriesResponse)
            texts += [memory.plaintext.text for memory in page.memories]
            token = page.next_page_token
            if not token:
                return texts


def turns(rounds: int, ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Returns the seconds of both, in turns; which begins changes from round to round."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(-1, rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter()
            (ours, theirs)[side]()
            # The first round warms up.
            if number >= 0:
                seconds[side].append(time.perf_counter() - began)
    return seconds


def figure(
    name: str, unit: str, scale: float, seconds: tuple[list[float], list[float]], against: str, **more: Any
) -> Figure:
    """Returns a figure of seconds times a scale."""
    ours, theirs = ([value * scale for value in side] for side in seconds)
    return Figure(name, unit, ours, theirs, against, **more)


def codec(page: bytes, rounds: int) -> Iterator[Figure]:
    """Yields what parsing and writing a page of 1,000 memories costs."""
    upb = pb.ListMemoriesResponse.FromString(page)
    dataclasses = generated.ListMemoriesResponse.parse(page)

    def plain() -> object:
        return [memory.plaintext.text for memory in pb.ListMemoriesResponse.FromString(page).memories]

    seconds = turns(rounds, lambda: generated.ListMemoriesResponse.parse(page), plain)
    yield figure("codec: betterproto2 parses 1,000 memories", "ms", 1e3, seconds, "upb, parsed and read")
    seconds = turns(rounds, lambda: bytes(dataclasses), upb.SerializeToString)
    yield figure("codec: betterproto2 writes 1,000 memories", "ms", 1e3, seconds, "upb")
    views = turns(
        rounds, lambda: [Memory(item).text for item in wire.ListMemoriesResponse.FromString(page).memories], plain
    )
    yield figure("codec: the SDK's models of 1,000 memories", "ms", 1e3, views, "upb, parsed and read")


def calls(client: Client, cube: Cube, stubs: Stubs, texts: list[str], rounds: int) -> Iterator[Figure]:
    """Yields what calls cost."""
    count = len(texts)
    more = {"at_most": 2.0}
    items = [{"text": text, "tags": ["bench"]} for text in texts]
    # A cube each round, so that a round does not pay for the ones before.
    number = iter(range(10_000))

    def ours() -> None:
        made = client.cubes.create(f"sdk-add-{next(number)}", embedding_model="none")
        assert made.add_many(items).added == count

    def theirs() -> None:
        made = client.cubes.create(f"sdk-add-{next(number)}", embedding_model="none")
        assert Stubs(client, made.name).add_many(texts) == count

    yield figure(f"add {count:,} memories, a commit", "s", 1, turns(rounds, ours, theirs), STUBS, **more)

    names = cube.add_many(items).names

    def listed() -> None:
        assert len([memory.text for memory in cube.list(page_size=1000)]) == count

    seconds = turns(rounds, listed, lambda: stubs.list())
    yield figure(f"list {count:,} memories, 1,000 a page", "s", 1, seconds, STUBS, **more)

    some = names[:: max(1, count // 500)]
    seconds = turns(
        rounds,
        lambda: [cube.get(name).text for name in some],
        lambda: [
            stubs.call("GetMemory", pb.GetMemoryRequest(name=name), pb.GetMemoryResponse).memory.plaintext.text
            for name in some
        ],
    )
    yield figure("get a memory", "ms", 1e3 / len(some), seconds, STUBS, **more)

    words = [" ".join(text.split()[:4]) for text in texts[:: max(1, count // 50)]]

    def searched(query: str) -> list[str]:
        request = pb.SearchMemoriesRequest(cubes=[cube.name], query=query, top_k=100, mode=pb.SEARCH_MODE_LEXICAL)
        found = stubs.call("SearchMemories", request, pb.SearchMemoriesResponse)
        return [hit.memory.plaintext.text for hit in found.hits]

    seconds = turns(
        rounds,
        lambda: [[hit.text for hit in cube.search(query, top_k=100, mode="lexical")] for query in words],
        lambda: [searched(query) for query in words],
    )
    yield figure("search by words, 100 hits", "ms", 1e3 / len(words), seconds, STUBS, **more)

    def added(text: str) -> None:
        request = pb.AddMemoriesRequest(parent=cube.name, memories=[{"plaintext": {"text": text}, "tags": ["bench"]}])
        stubs.call("AddMemories", request, pb.AddMemoriesResponse)

    few = texts[:100]
    seconds = turns(
        rounds, lambda: [cube.add(text, tags=["bench"]) for text in few], lambda: [added(text) for text in few]
    )
    yield figure("add a memory, a durable commit", "ms", 1e3 / len(few), seconds, STUBS, **more)


def starting(rounds: int) -> Figure:
    """Returns what a program waits for until it has a client."""

    def run(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    ours = run("from memos_sdk import Client; Client('127.0.0.1:1', token='')")
    theirs = run("import grpc, google.protobuf.message_factory")
    return figure("process start to a client", "ms", 1e3, turns(rounds, ours, theirs), "importing grpc and protobuf")


def measure(quick: bool) -> list[Figure]:
    """Returns all figures."""
    count, rounds = (1_000, 3) if quick else (10_000, 7)
    texts = Texts(None).take(count)
    figures: list[Figure] = []
    with (
        tempfile.TemporaryDirectory(prefix="memos-sdk-") as folder,
        MemosServer(Path(folder)) as server,
        Client(server.address, token=server.token, timeout=120) as client,
    ):
        page_cube = client.cubes.create("sdk-page", embedding_model="none")
        page_cube.add_many({"text": text, "tags": ["bench"], "labels": {"a": "b"}} for text in texts[:1000])
        stubs = Stubs(client, page_cube.name)
        request = pb.ListMemoriesRequest(parent=page_cube.name, page_size=1000)
        page = stubs.call("ListMemories", request, pb.ListMemoriesResponse).SerializeToString()
        figures += codec(page, rounds)
        cube = client.cubes.create("sdk", embedding_model="none")
        figures += calls(client, cube, Stubs(client, cube.name), texts, rounds)
    figures.append(starting(rounds))
    return figures


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    figures = measure(options.quick)
    print("\n".join(f"{key}: {value}" for key, value in machine().items()), end="\n\n")
    print(table(figures))
    if options.json:
        rows = [row.row() | {"at_most": row.at_most} for row in figures]
        content = {"machine": machine(), "quick": options.quick, "figures": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
