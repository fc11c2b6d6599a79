"""Texts of a server, made harmless: everything in a report may come from one that means harm."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_MISLEADING = re.compile(
    # Control characters but tab and line feed: XML has none of them, and terminals obey them.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    # Halves of surrogate pairs and the two numbers that are no characters: neither XML nor UTF-8 has them.
    "\ud800-\udfff\ufffe\uffff"
    # What ends a line in JavaScript, and what turns the direction of text, so that it reads as something else.
    "\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def visible(text: str) -> str:
    r"""Returns a text with the characters that XML lacks or that mislead a reader written as `\x1b` or `\u202e`."""
    return _MISLEADING.sub(lambda match: _escape(ord(match[0])), text)


def _escape(number: int) -> str:
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def shortened(text: str, characters: int) -> str:
    """Returns a text, cut off where it is longer."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def anchor(kind: str, name: str) -> str:
    """Returns the id of an element that links lead to."""
    return f"{kind}-{re.sub(r'[^A-Za-z0-9._:/-]', '_', name)}"


_VOID = ("input", "meta", "wbr")
"""Elements without content, of which HTML permits no end."""


class Safe(str):
    """A piece of HTML or SVG, put together by `tag`: nothing escapes it again."""

    __slots__ = ()


def safe(content: str) -> Safe:
    """Returns content as HTML: a text is escaped, a piece of HTML stays."""
    return content if isinstance(content, Safe) else Safe(html.escape(visible(content), quote=True))


def tag(element: str, /, *content: str, **attributes: str | bool | None) -> Safe:
    """Returns an element.

    Args:
        element: Its name.
        content: Texts, which are escaped, and other elements.
        attributes: A trailing `_` is dropped and `_` stands for `-`; None and False leave an attribute out.
    """
    parts = [element]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        # An attribute of another Safe is escaped all the same: a quote in it would end the attribute.
        parts.append(attribute if value is True else f'{attribute}="{html.escape(visible(str(value)), quote=True)}"')
    return Safe(f"<{' '.join(parts)}>{joined(content)}" + ("" if element in _VOID else f"</{element}>"))


def joined(content: Iterable[str]) -> Safe:
    """Returns pieces one after the other; texts are escaped, elements stay."""
    return Safe("".join(safe(piece) for piece in content))
