"""What the parts of the page share: words for results, sentences with their marks, JSON to read."""

from __future__ import annotations

import json
import re

from mip_conformance.reports.texts import Safe, joined, tag

_RESULTS = {
    "passed": ("passed", "✓", "passed"),
    "failed": ("failed", "✗", "failed"),
    "warned": ("warned", "!", "warned"),
    "known": ("known", "≈", "known to fail"),
    "not applicable": ("none", "–", "not applicable"),
    "excluded": ("none", "○", "not checkable"),
    "not run": ("none", "–", "not run"),
    "partial": ("none", "–", "partly run"),
}
"""Of each result its class, a sign and a word: it must be told without colour, too."""
_MARKS = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


def result(name: str) -> Safe:
    """Returns a result of a check, a requirement or a level."""
    kind, sign, word = _RESULTS.get(name, ("none", "–", name))
    return tag("span", tag("span", sign, aria_hidden="true"), f" {word}", class_=f"result {kind}")


def result_word(name: str) -> str:
    """Returns the word for a result."""
    return _RESULTS[name][2]


def sentence(text: str) -> Safe:
    """Returns a sentence of the specification, with code and emphasis as its Markdown marks them."""
    parts: list[str] = []
    at = 0
    for match in _MARKS.finditer(text):
        parts += [text[at : match.start()], tag("code", match[1]) if match[1] else tag("strong", match[2])]
        at = match.end()
    return joined([*parts, text[at:]])


def pretty(text: str) -> str:
    """Returns JSON with line breaks; another text as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def copyable(text: str) -> Safe:
    """Returns a text that somebody will want to copy; a script adds the button."""
    return tag("div", tag("pre", text, tabindex="0"), class_="copying")


def section(title: str, count: str, anchor: str, *content: str) -> Safe:
    """Returns a section with a heading that the list of contents leads to."""
    heading = tag("h2", title, tag("span", f" {count}", class_="count") if count else "")
    return tag("section", heading, *content, id=anchor)
