"""What a mutant is, and the list of all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import Message

from conformance.mutants.servers import Patches
from memos_server.api import server as api_server

Apply = Callable[[Patches], None]


class Mutant(NamedTuple):
    """The reference server with one fault.

    Attributes:
        name: What is wrong, in words joined by hyphens; members of a family are `{family}/{member}`.
        fault: What it does wrong, one sentence.
        apply: Puts the fault into the server.
        tries: Patterns of the checks that might find it, tried when kills.yaml is written; empty means all.
        embeds: True for a server that embeds texts; the others do not, which starts faster.
    """

    name: str
    fault: str
    apply: Apply
    tries: tuple[str, ...] = ()
    embeds: bool = False


_MUTANTS: dict[str, Mutant] = {}


def register(name: str, fault: str, apply: Apply, *tries: str, embeds: bool = False) -> None:
    """Adds a mutant to the list.

    Raises:
        ValueError: The name is taken.
    """
    if name in _MUTANTS:
        raise ValueError(f"two mutants are called {name}")
    _MUTANTS[name] = Mutant(name, " ".join(fault.split()), apply, tries, embeds)


def mutant(name: str, *tries: str, embeds: bool = False) -> Callable[[Apply], Apply]:
    """Registers a function as a mutant; its docstring says what is wrong, `tries` where it might be found."""

    def add(apply: Apply) -> Apply:
        register(name, apply.__doc__ or "", apply, *tries, embeds=embeds)
        return apply

    return add


def all_mutants() -> dict[str, Mutant]:
    """Returns every mutant by its name."""
    # Importing them registers them.
    from conformance.mutants import access, core, families, history, order, rewinding, searching, streams  # noqa: F401

    return dict(_MUTANTS)


def use_case(patches: Patches, rpc: str, wrapper: Callable[..., Any]) -> None:
    """Replaces the use case of an RPC by `wrapper(original, mos, call, request)`, to be awaited as the original is.

    Args:
        patches: What the fault changes.
        rpc: The RPC's own name, such as `GetCube`.
        wrapper: An async function; for a stream from the server an async generator.
    """
    original = api_server.USE_CASES[rpc]

    def wrapped(*args: Any) -> Any:
        return wrapper(original, *args)

    patches.set(api_server, "USE_CASES", {**api_server.USE_CASES, rpc: wrapped})


def after(patches: Patches, rpc: str, change: Callable[[Message], Any]) -> None:
    """Changes the response of an RPC: a unary one, or that of a client's stream."""

    async def changed(original: Callable[..., Any], *args: Any) -> Any:
        response = await original(*args)
        # What the server keeps to answer a repeated call stays as it was.
        copy = type(response)()
        copy.CopyFrom(response)
        replaced = change(copy)
        return copy if replaced is None else replaced

    use_case(patches, rpc, changed)


def before(patches: Patches, rpc: str, change: Callable[[Any], None]) -> None:
    """Changes the request of a unary RPC before the server's use case sees it."""

    async def changed(original: Callable[..., Any], mos: Any, call: Any, request: Message, *rest: Any) -> Any:
        change(request)
        return await original(mos, call, request, *rest)

    use_case(patches, rpc, changed)


def turned(patches: Patches, rpc: str, field: str) -> None:
    """Turns the order of a list in the response of an RPC around."""

    def turn(response: Any) -> None:
        items = getattr(response, field)
        found = list(items)[::-1]
        del items[:]
        items.extend(found)

    after(patches, rpc, turn)


def commits_in(response: Any) -> Sequence[Any]:
    """Returns the commits of a response that has one, or a list of them."""
    return response.commits if "commits" in response.DESCRIPTOR.fields_by_name else [response.commit]


def everywhere(patches: Patches, name: str, original: Any, replacement: Any) -> None:
    """Replaces a function in every module of the server that has imported it by its name."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("memos_server") and getattr(module, name, None) is original:
            patches.set(module, name, replacement)


def memories_in(response: Message) -> Iterator[Any]:
    """Yields every Memory of a response, wherever it stands."""
    for descriptor, value in response.ListFields():
        if descriptor.message_type is None:
            continue
        for item in value if descriptor.is_repeated else [value]:
            if item.DESCRIPTOR.full_name == "mip.v1.Memory":
                yield item
            else:
                yield from memories_in(item)
