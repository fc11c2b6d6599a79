"""Which memories are checked on the event loop, and which beside it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from memos_server._pb.mip.v1.memory_pb2 import Extension, Memory, Plaintext
from memos_server.mem_os.sealing import off_loop


@pytest.mark.parametrize(
    ("memory", "on_the_loop"),
    [
        (Memory(plaintext=Plaintext(text="short")), True),
        (Memory(plaintext=Plaintext(text="x" * 2001)), False),
        (Memory(attributes_json="x" * 2001), False),
        (Memory(extension=Extension(data=b"short")), True),
        (Memory(extension=Extension(data=b"x" * 2001)), False),
        (Memory(extension=Extension(text="x" * 2001)), False),
    ],
    ids=["short text", "long text", "attributes", "short extension", "extension", "text of an extension"],
)
async def test_large_memories_of_any_type_are_checked_on_a_thread(memory: Memory, on_the_loop: bool) -> None:
    with ThreadPoolExecutor(1) as pool:
        mos: Any = SimpleNamespace(cpu=pool)
        thread = await off_loop(mos, threading.get_ident, [memory])
    assert (thread == threading.get_ident()) is on_the_loop
