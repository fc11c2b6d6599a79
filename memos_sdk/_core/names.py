"""Short ids and full resource names: people write `notes`, the protocol says `cubes/notes`."""

from __future__ import annotations

from memos_sdk.errors import UsageError


def _wrong(value: str, example: str) -> UsageError:
    return UsageError(f"{value!r} is not a name", reason="INVALID_NAME", remedy=f"Write it like {example}.")


def cube_name(value: str) -> str:
    """Returns `cubes/{cube}` for an id or a name."""
    parts = value.split("/")
    if len(parts) == 1 and value:
        return f"cubes/{value}"
    if len(parts) == 2 and parts[0] == "cubes" and parts[1]:
        return value
    raise _wrong(value, "notes or cubes/notes")


def child_name(cube: str, collection: str, value: str) -> str:
    """Returns `{cube}/{collection}/{id}` for an id, a relative name or a full name, which stays as it is."""
    parts = value.split("/")
    if len(parts) == 1 and value:
        return f"{cube}/{collection}/{value}"
    if len(parts) == 2 and parts[0] == collection and parts[1]:
        return f"{cube}/{value}"
    if len(parts) == 4 and parts[0] == "cubes" and parts[2] == collection and all(parts):
        return value
    raise _wrong(value, f"ID, {collection}/ID or {cube}/{collection}/ID")


def principal_name(value: str) -> str:
    """Returns `principals/{principal}` for an id or a name."""
    if value and "/" not in value:
        return f"principals/{value}"
    if value.startswith("principals/") and value.count("/") == 1 and value != "principals/":
        return value
    raise _wrong(value, "alice or principals/alice")


def grant_resource(value: str) -> str:
    """Returns `server`, a cube's name or a memory's name; a bare word other than `server` is a cube's id."""
    if value == "server" or value.startswith("cubes/"):
        return value
    return cube_name(value)
