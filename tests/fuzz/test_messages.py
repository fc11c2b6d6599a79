"""Every request of every RPC, random and mutated, against a real server: never its fault, and it stays well."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.fuzz.corpus import EFFORTS, fuzz, kept
from tests.fuzz.live import Live
from tests.fuzz.messages import frames, message, mutated
from tests.support.mip import METHODS

RPCS = sorted(METHODS)
REQUESTS = 12
"""How many requests one example sends, half of them mutated bytes."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server under attack, whose state grows with what the attacks do."""
    server = Live(tmp_path_factory.mktemp("attacked") / "data")
    yield server
    server.close()


@pytest.mark.parametrize("rpc", RPCS)
@EFFORTS
def test_no_request_is_the_servers_fault(live: Live, rpc: str, effort: int) -> None:
    method = METHODS[rpc]
    live.fresh_cube()

    def attack(seed: int) -> None:
        rng = random.Random(seed)
        for number in range(REQUESTS):
            if method.client_streaming:
                live.send(rpc, frames(rng, method.input_type, live.pool))
                continue
            body = message(rng, method.input_type, live.pool).SerializeToString()
            live.send(rpc, [mutated(rng, body) if number % 2 else body])

    fuzz(4 * effort, attack, st.integers(0, 2**64))
    live.fresh_cube()


@EFFORTS
def test_no_order_of_requests_is_the_servers_fault(live: Live, effort: int) -> None:
    live.fresh_cube()

    def attack(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(REQUESTS * 5):
            rpc = rng.choice(RPCS)
            if rpc in ("DeleteCube", "PurgeCube") and rng.random() < 0.95:
                continue  # after which nothing else would be tried
            method = METHODS[rpc]
            if method.client_streaming:
                live.send(rpc, frames(rng, method.input_type, live.pool))
            else:
                live.send(rpc, [message(rng, method.input_type, live.pool).SerializeToString()])
        live.fresh_cube()

    fuzz(12 * effort, attack, st.integers(0, 2**64))
    live.run(live.verify_all())


@kept("messages")
def test_a_kept_request_is_not_the_servers_fault(live: Live, file: Path) -> None:
    # A file is RPC.what-it-is; frames of a stream are files of their own.
    live.fresh_cube()
    live.send(file.name.partition(".")[0], [file.read_bytes()])
    live.fresh_cube()
