"""Resource names and the other text grammars of the contract (docs/spec/names.md): one compiled expression a Format.

Ids are parsed out of names and names are built from ids here and nowhere else.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from memos_server import json_text
from memos_server._pb.mip.v1 import options_pb2
from memos_server.errors import FieldViolation, MipError

_ID: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_CUBE: Final = rf"cubes/({_ID})"
_MEMORY: Final = rf"{_CUBE}/memories/({_ID})"
_UUID: Final = r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"

MAX_REVISION: Final = 2**63 - 1
"""The largest revision that a commit name holds."""


class Grammar(NamedTuple):
    """The grammar of one Format.

    Attributes:
        pattern: Matches the whole of a well-formed text; its groups are the ids.
        shape: What the text looks like, for messages.
        reason: The error reason of a text that does not match.
    """

    pattern: re.Pattern[str]
    shape: str
    reason: str


def _grammar(pattern: str, shape: str, reason: str = "INVALID_NAME") -> Grammar:
    return Grammar(re.compile(pattern, re.ASCII), shape, reason)


GRAMMARS: Final[dict[int, Grammar]] = {
    options_pb2.FORMAT_ID: _grammar(_ID, "1 to 128 of a-z A-Z 0-9 . _ -, beginning with a letter or digit"),
    options_pb2.FORMAT_CUBE_NAME: _grammar(_CUBE, "cubes/{cube}"),
    options_pb2.FORMAT_MEMORY_NAME: _grammar(_MEMORY, "cubes/{cube}/memories/{memory}"),
    options_pb2.FORMAT_SESSION_NAME: _grammar(rf"{_CUBE}/sessions/({_ID})", "cubes/{cube}/sessions/{session}"),
    options_pb2.FORMAT_PRINCIPAL_NAME: _grammar(rf"principals/({_ID})", "principals/{principal}"),
    options_pb2.FORMAT_GRANT_RESOURCE: _grammar(
        rf"server|{_CUBE}(?:/memories/({_ID}))?", "server, cubes/{cube} or cubes/{cube}/memories/{memory}"
    ),
    options_pb2.FORMAT_UUID: _grammar(_UUID, "a UUID such as 0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77", "INVALID_FIELD"),
    options_pb2.FORMAT_BLOB_DIGEST: _grammar(
        r"sha256:([0-9a-f]{64})", "sha256: and 64 lower-case hexadecimal digits", "INVALID_FIELD"
    ),
    options_pb2.FORMAT_RELATION_TYPE: _grammar(
        r"[A-Z][A-Z0-9_]{0,63}", "1 to 64 of A-Z 0-9 _, beginning with a letter", "INVALID_FIELD"
    ),
    options_pb2.FORMAT_JOB_NAME: _grammar(rf"{_CUBE}/jobs/({_ID})", "cubes/{cube}/jobs/{job}"),
    options_pb2.FORMAT_COMMIT_NAME: _grammar(
        rf"{_CUBE}/commits/([1-9][0-9]{{0,18}})", "cubes/{cube}/commits/{revision}"
    ),
    options_pb2.FORMAT_LABEL_KEY: _grammar(
        r"[A-Za-z][A-Za-z0-9._/-]{0,127}", "1 to 128 of a-z A-Z 0-9 . _ / -, beginning with a letter", "INVALID_FIELD"
    ),
}
"""Format number -> grammar, for every Format but FORMAT_JSON, which no regular expression describes."""


def matches(format_: int, text: str) -> bool:
    """Returns whether a text follows a Format of the contract.

    Raises:
        KeyError: The number is no Format that this server knows.
    """
    if format_ == options_pb2.FORMAT_JSON:
        return json_text.is_valid(text)
    if format_ == options_pb2.FORMAT_UNSPECIFIED:
        return True
    found = GRAMMARS[format_].pattern.fullmatch(text)
    if found is None:
        return False
    return format_ != options_pb2.FORMAT_COMMIT_NAME or int(found[2]) <= MAX_REVISION


def check(format_: int, text: str, field: str = "name") -> str:
    """Returns the text when it follows the Format.

    Raises:
        MipError: INVALID_NAME (or what the Format's grammar names) with the field at fault.
    """
    if not matches(format_, text):
        raise _refused(GRAMMARS[format_], field)
    return text


def _refused(grammar: Grammar, field: str) -> MipError:
    description = f"must have the form {grammar.shape}"
    return MipError(grammar.reason, f"{field}: {description}", violations=[FieldViolation(field, description)])


def _parse(grammar: Grammar, text: str, field: str) -> tuple[str, ...]:
    found = grammar.pattern.fullmatch(text)
    if found is None:
        raise _refused(grammar, field)
    return found.groups()


def cube_name(cube_id: str) -> str:
    """Returns `cubes/{cube}`."""
    return f"cubes/{cube_id}"


def memory_name(cube_id: str, memory_id: str) -> str:
    """Returns `cubes/{cube}/memories/{memory}`."""
    return f"cubes/{cube_id}/memories/{memory_id}"


def session_name(cube_id: str, session_id: str) -> str:
    """Returns `cubes/{cube}/sessions/{session}`."""
    return f"cubes/{cube_id}/sessions/{session_id}"


def relation_name(cube_id: str, relation_id: str) -> str:
    """Returns `cubes/{cube}/relations/{relation}`."""
    return f"cubes/{cube_id}/relations/{relation_id}"


def job_name(cube_id: str, job_id: str) -> str:
    """Returns `cubes/{cube}/jobs/{job}`."""
    return f"cubes/{cube_id}/jobs/{job_id}"


def commit_name(cube_id: str, revision: int) -> str:
    """Returns `cubes/{cube}/commits/{revision}`."""
    return f"cubes/{cube_id}/commits/{revision}"


def principal_name(principal_id: str) -> str:
    """Returns `principals/{principal}`."""
    return f"principals/{principal_id}"


def parse_cube(name: str, field: str = "name") -> str:
    """Returns the id in `cubes/{cube}`; raises MipError INVALID_NAME."""
    return _parse(GRAMMARS[options_pb2.FORMAT_CUBE_NAME], name, field)[0]


def parse_memory(name: str, field: str = "name") -> tuple[str, str]:
    """Returns (cube id, memory id) of `cubes/{cube}/memories/{memory}`; raises MipError INVALID_NAME."""
    cube, memory = _parse(GRAMMARS[options_pb2.FORMAT_MEMORY_NAME], name, field)
    return cube, memory


def parse_session(name: str, field: str = "name") -> tuple[str, str]:
    """Returns (cube id, session id) of `cubes/{cube}/sessions/{session}`; raises MipError INVALID_NAME."""
    cube, session = _parse(GRAMMARS[options_pb2.FORMAT_SESSION_NAME], name, field)
    return cube, session


def parse_job(name: str, field: str = "name") -> tuple[str, str]:
    """Returns (cube id, job id) of `cubes/{cube}/jobs/{job}`; raises MipError INVALID_NAME."""
    cube, job = _parse(GRAMMARS[options_pb2.FORMAT_JOB_NAME], name, field)
    return cube, job


def parse_commit(name: str, field: str = "name") -> tuple[str, int]:
    """Returns (cube id, revision) of `cubes/{cube}/commits/{revision}`; raises MipError INVALID_NAME."""
    grammar = GRAMMARS[options_pb2.FORMAT_COMMIT_NAME]
    cube, digits = _parse(grammar, name, field)
    revision = int(digits)
    if revision > MAX_REVISION:
        raise _refused(grammar, field)
    return cube, revision


def parse_principal(name: str, field: str = "principal") -> str:
    """Returns the id in `principals/{principal}`; raises MipError INVALID_NAME."""
    return _parse(GRAMMARS[options_pb2.FORMAT_PRINCIPAL_NAME], name, field)[0]


class GrantResource(NamedTuple):
    """What a grant is on; both ids are None for the server, `memory` is None for a cube."""

    cube: str | None
    memory: str | None


def parse_grant_resource(name: str, field: str = "resource") -> GrantResource:
    """Returns what `server`, `cubes/{cube}` or `cubes/{cube}/memories/{memory}` names; raises MipError INVALID_NAME."""
    grammar = GRAMMARS[options_pb2.FORMAT_GRANT_RESOURCE]
    found = grammar.pattern.fullmatch(name)
    if found is None:
        raise _refused(grammar, field)
    return GrantResource(found[1], found[2])


_WITHIN_CUBE: Final = _grammar(
    rf"{_CUBE}(?:/(?:memories|sessions|relations|jobs|commits)/{_ID})?", "cubes/{cube} or the name of a part of it"
)
_RELATIVE: Final = _grammar(
    rf"((?:memories|sessions|relations|jobs|commits)/{_ID})?", "{collection}/{id}, relative to its cube"
)


def cube_of(name: str, field: str = "name") -> str:
    """Returns the id of the cube that a name lies in, or that it names; raises MipError INVALID_NAME."""
    return _parse(_WITHIN_CUBE, name, field)[0]


def absolute(cube_id: str, relative_name: str) -> str:
    """Returns the full name of `{collection}/{id}` in a cube, or of the cube; raises MipError INVALID_NAME."""
    _parse(_RELATIVE, relative_name, "name")
    return f"cubes/{cube_id}/{relative_name}" if relative_name else f"cubes/{cube_id}"
