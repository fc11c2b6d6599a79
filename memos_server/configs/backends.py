"""Finds backends by entry point: `{backend: NAME, config: {...}}` names one of a group such as `memos.vec_dbs`."""

from __future__ import annotations

import inspect
from importlib import metadata
from typing import Any, Final

from memos_server.configs.errors import SetupError


def installed_backends(group: str) -> list[str]:
    """Returns the names of a group's backends, sorted, without loading any of them.

    Args:
        group: The entry point group, such as `memos.embedders`.
    """
    return sorted({entry.name for entry in metadata.entry_points(group=group)})


def load_backend(group: str, name: str, *args: Any, port: type | None = None, **config: Any) -> Any:
    """Makes a backend.

    Args:
        group: The entry point group, such as `memos.vec_dbs`.
        name: The backend's name in it.
        args: What the group's backends are made from, such as the data folder.
        port: The Protocol that the backend must have; None checks nothing.
        config: The backend's own settings.

    Returns:
        What the backend's factory returned.

    Raises:
        SetupError: No such backend is installed, two packages offer one of that name, it does not import, its settings
            are wrong, or it lacks what its port has.
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
    remedy = _REMEDIES.get(group, "Install what it needs, or choose another backend in the settings.")
    brought = f"The backend {name!r} of {group}, which {_package(found[0])} brings,"
    try:
        factory = found[0].load()
    except Exception as error:  # whatever a foreign module does when it is imported
        raise SetupError(f"{brought} does not load: {_told(error)}.", remedy) from error
    try:
        made = factory(*args, **config)
    except SetupError:
        raise
    except (TypeError, ValueError) as error:
        keys = ", ".join(sorted(config)) or "none"
        raise SetupError(
            f"The backend {name!r} of {group} refuses its settings ({keys}): {error}.",
            "Correct its config section in the settings.",
        ) from error
    wrong = misfits(made, port) if port is not None else []
    if wrong:
        raise SetupError(f"{brought} is no {port.__name__ if port else ''}: {'; '.join(wrong)}.", remedy)
    return made


_REMEDIES: Final = {"memos.memories": "Mend or uninstall the package; every installed memory type is loaded."}


def misfits(made: object, port: type) -> list[str]:
    """Returns in words what a backend lacks of its port: members, parameters, `async`. Empty when nothing.

    Args:
        made: The backend.
        port: The Protocol.
    """
    wrong = []
    for name in sorted({*port.__annotations__, *vars(port)}):
        wanted = getattr(port, name, None)
        if name.startswith("_") or isinstance(wanted, property):
            continue
        have = getattr(made, name, None)
        if have is None:
            wrong.append(f"{name} is missing")
        elif inspect.isfunction(wanted):
            wrong += _misfit(name, wanted, have)
    return wrong


def _misfit(name: str, wanted: Any, have: Any) -> list[str]:
    """Returns what keeps a method from being called as the port's, in one phrase or none."""
    parameters = list(inspect.signature(wanted).parameters.values())[1:]
    if not callable(have):
        return [f"{name} is no method"]
    if inspect.iscoroutinefunction(wanted) and not inspect.iscoroutinefunction(have):
        return [f"{name} must be `async def`"]
    if not inspect.iscoroutinefunction(wanted) and inspect.iscoroutinefunction(have):
        return [f"{name} must not be `async def`"]
    positional = [each.name for each in parameters if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    keywords = {each.name: None for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
    try:
        inspect.signature(have).bind(*positional, **keywords)
    except TypeError:
        return [f"{name} must take ({', '.join([*positional, *keywords])})"]
    except ValueError:  # a method without a signature, written in C
        pass
    return []


def _package(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value


def _told(error: Exception) -> str:
    """Returns an error in one line; of an import error the message says all."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ImportError) and text else f"{type(error).__name__}: {text}"
