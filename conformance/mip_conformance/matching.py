"""Whether a response holds what a case expects of it."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from mip_conformance.values import same_text

_SHOWN = 200


def difference(expected: Any, actual: Any, path: str = "response") -> str:
    """Returns where a value does not hold what is expected, empty where it does.

    Each key of a map must be there with that value, other keys do not matter; null means that the key is absent. Lists
    must be as long as here. Bytes may be given as base64.
    """
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            return f"{path} is {_short(actual)} and no message"
        for key, value in expected.items():
            if value is None:
                if key in actual:
                    return f"{path}.{key} is {_short(actual[key])} and should be absent"
            elif key not in actual:
                return f"{path}.{key} is absent"
            elif found := difference(value, actual[key], f"{path}.{key}"):
                return found
        return ""
    if isinstance(expected, list | tuple):
        if not isinstance(actual, list | tuple):
            return f"{path} is {_short(actual)} and no list"
        if len(expected) != len(actual):
            return f"{path} has {len(actual)} elements instead of {len(expected)}: {_short(actual)}"
        for place, (one, other) in enumerate(zip(expected, actual, strict=True)):
            if found := difference(one, other, f"{path}[{place}]"):
                return found
        return ""
    return "" if _equal(expected, actual) else f"{path} is {_short(actual)} instead of {_short(expected)}"


def _equal(expected: Any, actual: Any) -> bool:
    if isinstance(expected, str) and isinstance(actual, bytes):
        try:
            return base64.b64decode(expected, validate=True) == actual
        except binascii.Error:
            return False
    if isinstance(expected, str) and isinstance(actual, str):
        return same_text(expected, actual)
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    return bool(expected == actual)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
