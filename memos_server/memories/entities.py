"""Names that a text mentions, for the graph channel: found by their capitals, without a model."""

from __future__ import annotations

import re
from typing import Final

from memos_server.memories.words import DATE_WORDS, NOT_NAMES, STOP_WORDS

MAX_ENTITIES: Final = 32
"""The most entities of a text."""
MAX_ENTITY: Final = 64
"""The most characters of an entity."""
MAX_CHARACTERS: Final = 65_536
"""Characters of a text that are looked at."""

_JOINING: Final = frozenset(["of", "the", "de", "da", "di", "del", "der", "van", "von", "la", "le"])
_PARTING: Final = STOP_WORDS - _JOINING
# Several plain words in one piece, as most of a text is; initials and titles, whose full stop ends no sentence; words;
# single marks.
_PIECE: Final = re.compile(
    r"[a-z]+(?: [a-z]+)+(?![^\W_]|['’.&-][^\W_])"
    r"|(?:[A-Z]\.)+(?![^\W_])|(?:Dr|Mrs?|Ms|St|Prof)\.|[^\W_]+(?:['’.&-][^\W_]+)*|\n|[^\w\s]"
)
_ENDS_SENTENCE: Final = frozenset('.!?:;\n…-–—*#>"“(')
_VERB_LIKE: Final = ("ing", "ly", "ed")


def entities(text: str) -> list[str]:
    """Returns the names in a text, lower-case, in order of appearance, without repeats, at most 32.

    A name is a run of capitalised words, joined by words such as `of` and `van` between them. A lone capitalised word
    at the beginning of a sentence counts only when it is no common opening word and does not look like a verb or an
    adverb, or when the text writes it with a capital elsewhere too. Numbers and dates are no names.

    Args:
        text: Any text; what comes after its first 65,536 characters is not looked at.
    """
    found: dict[str, bool] = {}
    run: list[str] = []
    joining: list[str] = []
    opens = starts = True  # whether the next word, and the current run, begin a sentence
    for piece in _PIECE.findall(text[:MAX_CHARACTERS]):
        if not run and piece.islower():
            opens = False  # by far the most words
        elif " " in piece:
            for word in piece.split(" "):
                if word not in _JOINING or len(joining) == 2:
                    _keep(run, starts, found)
                    run, joining, opens = [], [], False
                    break
                joining.append(word)
        elif not piece[0].isalnum():
            _keep(run, starts, found)
            run, joining = [], []
            opens = piece[0] in _ENDS_SENTENCE or (opens and piece[0] in "'‘")
        elif run and piece[0].isupper() and piece.casefold() in _PARTING:
            _keep(run, starts, found)
            run, joining, opens = [], [], False
        elif piece[0].isupper() or (run and piece[0].isdigit()) or _has_inner_capital(piece):
            if not run:
                starts = opens
            run += [*joining, piece]
            joining, opens = [], False
        elif run and piece in _JOINING and len(joining) < 2:
            joining.append(piece)
        else:
            _keep(run, starts, found)
            run, joining, opens = [], [], False
    _keep(run, starts, found)
    return [name for name, sure in found.items() if sure][:MAX_ENTITIES]


def _has_inner_capital(word: str) -> bool:
    # The second test is quick and fails for nearly all words; it lets a few scripts' titlecase letters through.
    return len(word) > 2 and not word.islower() and word[0].islower() and any(map(str.isupper, word[1:]))


def _keep(run: list[str], starts: bool, found: dict[str, bool]) -> None:
    """Adds the name in a run to `found`: name -> whether it is certain enough to be one."""
    if not run:
        return
    words = [word.replace("’", "'") for word in run]
    words[-1:] = [word.removesuffix("'s").removesuffix("'S") for word in words[-1:]]
    no_names = NOT_NAMES if starts else STOP_WORDS
    first = 0
    while first < len(words) and words[first].casefold() in no_names and not _is_acronym(words[first]):
        first += 1
    while 0 < first < len(words) and words[first] in _JOINING:
        first += 1
    starts = starts and not first
    words = words[first:]
    if not words or all(word.casefold() in DATE_WORDS or word[0].isdigit() for word in words):
        return
    name = " ".join(words).casefold().rstrip(".")
    if len(name) < 2 or len(name) > MAX_ENTITY:
        return
    unsure = starts and len(words) == 1 and not _is_acronym(words[0]) and name.endswith(_VERB_LIKE)
    found[name] = found.get(name, False) or not unsure


def _is_acronym(word: str) -> bool:
    return len(word) > 1 and word.isupper()
