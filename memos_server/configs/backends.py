"""Finds backends by entry point: `{backend: NAME, config: {...}}` names one of a group such as `memos.vec_dbs`."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from memos_server.configs.errors import SetupError


def installed_backends(group: str) -> list[str]:
    """Returns the names of a group's backends, sorted, without loading any of them.

    Args:
        group: The entry point group, such as `memos.embedders`.
    """
    return sorted({entry.name for entry in metadata.entry_points(group=group)})


def load_backend(group: str, name: str, *args: Any, **config: Any) -> Any:
    """Makes a backend.

    Args:
        group: The entry point group, such as `memos.vec_dbs`.
        name: The backend's name in it.
        args: What the group's backends are made from, such as the data folder.
        config: The backend's own settings.

    Returns:
        What the backend's factory returned; the caller knows the group's port.

    Raises:
        SetupError: No such backend is installed, two packages offer one of that name, it does not import, or its
            settings are wrong.
    """
    found = [entry for entry in metadata.entry_points(group=group) if entry.name == name]
    if not found:
        known = ", ".join(installed_backends(group)) or "none"
        raise SetupError(
            f"There is no backend {name!r} in {group}; installed: {known}.",
            "Correct the name in the settings, or install the package that brings the backend.",
        )
    if len({entry.value for entry in found}) > 1:
        packages = ", ".join(sorted(entry.dist.name for entry in found if entry.dist is not None))
        raise SetupError(
            f"Several packages bring a backend {name!r} in {group}: {packages}.", "Uninstall all of them but one."
        )
    try:
        factory = found[0].load()
    except (ImportError, AttributeError) as error:
        raise SetupError(
            f"The backend {name!r} of {group} does not load: {error}.",
            "Install what it needs, or choose another backend in the settings.",
        ) from error
    try:
        return factory(*args, **config)
    except (TypeError, ValueError) as error:
        keys = ", ".join(sorted(config)) or "none"
        raise SetupError(
            f"The backend {name!r} of {group} refuses its settings ({keys}): {error}.",
            "Correct its config section in the settings.",
        ) from error
