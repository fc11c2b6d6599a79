"""The memory types that a server has: those of this package and those that plug-ins bring."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Final

from memos_server._pb.mip.v1.memory_pb2 import Memory
from memos_server.configs.backends import installed_backends, load_backend
from memos_server.configs.errors import SetupError
from memos_server.errors import invalid_field
from memos_server.memories.base import MemoryType
from memos_server.memories.extension import ExtensionType

GROUP: Final = "memos.memories"
"""The entry point group of memory types."""
_ARMS: Final = [field.name for field in Memory.DESCRIPTOR.oneofs_by_name["payload"].fields]


class MemoryTypes:
    """Finds the type of a memory by the arm of its payload, and for extensions by Extension.type."""

    def __init__(self, types: Sequence[MemoryType]) -> None:
        """Takes the types; ExtensionType stands in for extensions that none of them handles.

        Raises:
            SetupError: A type names no arm of the payload, an extension type outside `extension`, or what another one
                has named already.
        """
        self._types: dict[tuple[str, str], MemoryType] = {}
        for type_ in types:
            key = (type_.payload, type_.extension_type)
            if type_.payload not in _ARMS or (type_.extension_type and type_.payload != "extension"):
                raise SetupError(
                    f"The memory type {type(type_).__name__} declares payload {type_.payload!r} and extension type"
                    f" {type_.extension_type!r}, which no memory can have.",
                    f"Correct its attributes: payload is one of {', '.join(_ARMS)}.",
                )
            if key in self._types:
                raise SetupError(
                    f"The memory types {type(self._types[key]).__name__} and {type(type_).__name__} both handle"
                    f" {' '.join(part for part in key if part)}.",
                    "Uninstall one of the packages that bring them.",
                )
            self._types[key] = type_
        self._types.setdefault(("extension", ""), ExtensionType())

    @classmethod
    def installed(cls) -> MemoryTypes:
        """Returns the types of all installed packages, made from the entry points of `memos.memories`.

        Raises:
            SetupError: One does not load or is no MemoryType, two have one name, or two handle the same payload.
        """
        return cls([load_backend(GROUP, name, port=MemoryType) for name in installed_backends(GROUP)])

    def for_memory(self, memory: Memory, field: str) -> MemoryType:
        """Returns the type of a memory.

        Args:
            memory: The memory.
            field: Its path in the request, such as `memories[3]`.

        Raises:
            MipError: FIELD_REQUIRED when it has no payload; UNKNOWN_PAYLOAD when no type handles the arm.
        """
        arm = memory.WhichOneof("payload")
        if arm is None:
            raise invalid_field(f"{field}.payload", f"must be one of {', '.join(self.payloads())}", "FIELD_REQUIRED")
        if arm == "extension":
            known = self._types.get((arm, memory.extension.type))
            return known if known is not None else self._types[arm, ""]
        found = self._types.get((arm, ""))
        if found is None:
            raise invalid_field(f"{field}.payload", f"is of the type {arm}, which is not installed", "UNKNOWN_PAYLOAD")
        return found

    def version(self) -> str:
        """Returns what the words that these types index depend on, beyond this package: the types that plug-ins bring,
        with the versions of their packages; empty without any."""
        return " ".join(
            sorted(
                f"{payload}/{extension_type}={module}@{_version(module)}"
                for (payload, extension_type), type_ in self._types.items()
                if (module := type(type_).__module__).partition(".")[0] != __name__.partition(".")[0]
            )
        )

    def payloads(self) -> list[str]:
        """Returns the arms of the payload that are handled, in the contract's order."""
        handled = {payload for payload, _ in self._types}
        return [arm for arm in _ARMS if arm in handled]

    def extension_types(self) -> list[str]:
        """Returns the values of Extension.type that plug-ins handle, sorted."""
        return sorted(extension_type for _, extension_type in self._types if extension_type)


def _version(module: str) -> str:
    """Returns the version of the package that brings a module; empty for one that was not installed."""
    found = {
        entry.dist.version
        for entry in metadata.entry_points(group=GROUP)
        if entry.module == module and entry.dist is not None
    }
    return ",".join(sorted(found))
