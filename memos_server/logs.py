"""Logging to standard error: text for people or one JSON object a line for machines. No content, no secrets.

A traceback tells where, never with what: the text of an exception may quote what a caller sent, so only texts that are
known not to are written (`described`). Every line passes through here, those of libraries and of asyncio too.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Final, TextIO

from memos_server.configs.errors import SetupError
from memos_server.errors import MipError

_LOG: Final = logging.getLogger(__name__)

_MAX_CHAIN: Final = 8
_OF_SERVER: Final = frozenset({"UNAVAILABLE", "DATA_LOSS", "INTERNAL", "RESOURCE_EXHAUSTED"})
"""The codes of errors that are about the server and not about what a caller sent."""
_FRAMES: Final = 40

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    # Generic in the stubs only.
    _StreamHandler = logging.StreamHandler

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


def described(error: BaseException) -> str:
    """Returns what may be written of an exception: its type, and its text where that never holds content.

    Errors of this project that blame the server say what happened without content; those that blame the caller may
    quote it, to the caller alone. Those of the operating system name a file, those of SQLite have a code; anything else
    may quote a value.
    """
    name = type(error).__qualname__
    if isinstance(error, SetupError):
        return f"{name}: {error}"
    if isinstance(error, MipError):
        return f"{name}: {error}" if error.code in _OF_SERVER else f"{name}: {error.reason}"
    if isinstance(error, OSError):
        return f"{name}: {error}" if error.errno else name
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorname", "")
        return f"{name}: {code}" if code else name
    return name


def trace(error: BaseException) -> str:
    """Returns a traceback without the texts of exceptions, those that caused it first."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain and len(chain) < _MAX_CHAIN:
        chain.append(following)
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return "\n".join("".join([*_frames(link), described(link)]) for link in reversed(chain))


def _frames(error: BaseException) -> Iterator[str]:
    yield from traceback.format_tb(error.__traceback__, -_FRAMES)
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions[:_MAX_CHAIN]:
            yield f"[{described(part)}]\n"


class _Scrubbed(logging.Formatter):
    """What both formats share: nothing of an exception but what `described` lets through."""

    def message(self, record: logging.LogRecord) -> str:
        """Returns the message, with exceptions among its arguments described."""
        if record.args:
            if isinstance(record.args, Mapping):
                arguments: object = {key: _safe(value) for key, value in record.args.items()}
            else:
                arguments = tuple(_safe(value) for value in record.args)
            text = str(record.msg) % arguments
        else:
            text = described(record.msg) if isinstance(record.msg, BaseException) else str(record.msg)
        # asyncio's further lines are the reprs of futures, with those of their exceptions.
        return text.partition("\n")[0] if record.name == "asyncio" else text

    def formatException(self, ei: ExcInfo) -> str:
        """Returns the traceback."""
        return trace(ei[1]) if ei[1] is not None else ""


def _safe(value: object) -> object:
    return described(value) if isinstance(value, BaseException) else value


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    """Returns what a record carries beside its message: `extra={"fields": {...}}`."""
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


class JsonLines(_Scrubbed):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
            **_fields(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = trace(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)


class TextLines(_Scrubbed):
    """A line for people, and a traceback below it where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the lines; control characters cannot steer the reader's terminal."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        parts = [f"{time} {record.levelname:<7} {record.name}: {self.message(record)}"]
        parts += [f"{key}={value}" for key, value in _fields(record).items()]
        text = " ".join(parts)
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}\n{trace(record.exc_info[1])}"
        return "".join(char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


class _Handler(_StreamHandler):
    """Writes to standard error."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Says that a line could not be written; logging's own handling would print its arguments."""
        with suppress(Exception):
            self.stream.write(f"a line of {record.name} could not be logged\n")


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        name = args.thread.name if args.thread is not None else "unknown"
        _LOG.error("the thread %s ended", name, exc_info=args.exc_value)


def _not_raised(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        _LOG.error("an error could not be raised", exc_info=args.exc_value)


def set_up(level: str, format_: str) -> None:
    """Sends the log to standard error, and to the log what Python would print by itself.

    Args:
        level: The least severe level that is written.
        format_: `text` or `json`.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(JsonLines() if format_ == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        # They write a line for every request to an engine.
        for chatty in ("httpx", "httpcore"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
    threading.excepthook = _thread_failed
    sys.unraisablehook = _not_raised
