"""What to do about an error in the words of the command line, where errors.proto says it in those of the protocol."""

from __future__ import annotations

from memos_sdk._gen.reasons import REASONS
from memos_sdk.errors import MipError

_REMEDIES = {
    "UNAUTHENTICATED": "Give a token with --token or MEMOS_TOKEN; on the server's machine `memos token show` prints the"
    " local one, and --data names the server's folder.",
    "TOKEN_EXPIRED": "Ask an administrator for a new token (`memos token issue`).",
    "CUBE_NOT_FOUND": "See `memos cube list`, or create the cube with `memos cube create`.",
    "CUBE_DELETED": "Restore it with `memos cube undelete`.",
    "MEMORY_NOT_FOUND": "See `memos list CUBE`; --deleted includes deleted ones.",
    "REVISION_NOT_FOUND": "Choose a revision between 1 and the cube's current one; `memos cube log CUBE` lists them.",
    "SESSION_NOT_FOUND": "See `memos session list CUBE`, or create the session with `memos session create`.",
    "PRINCIPAL_NOT_FOUND": "See `memos principal list`, or create the principal with `memos principal create`.",
    "GRANT_NOT_FOUND": "See `memos grant list`.",
    "JOB_NOT_FOUND": "See `memos job list CUBE`.",
    "RELATION_NOT_FOUND": "See `memos relations CUBE`.",
    "TOKEN_NOT_FOUND": "Check the token id; it is the one that `memos token issue` showed.",
    "ALREADY_EXISTS": "Choose another id. Ids are never used again: what was deleted comes back (`memos activate`,"
    " `memos cube undelete`).",
    "EMBEDDER_UNAVAILABLE": "Install the weights with `memos models add minilm` and restart the server, or search with"
    " --mode lexical.",
    "FIELD_REQUIRED": "Give what is missing; --help of the command lists everything.",
    "INVALID_FILTER": """Write a filter as 'tags:"work"' or 'kind = "fact" AND confidence >= 0.5';"""
    " docs/spec/filter.md has the grammar.",
    "INVALID_NAME": "An id begins with a letter or digit and goes on with these, dots, _ and -, up to 128 in all,"
    " such as m1; the whole name would be cubes/notes/memories/m1.",
    "UNIMPLEMENTED": "See `memos capabilities` for what this server declares.",
}


def remedy_of(error: MipError) -> str:
    """Returns what a user of the command line can do; what the server or the SDK says of this very case wins."""
    rule = REASONS.get(error.reason)
    declared = rule.remedy if rule else ""
    return _REMEDIES.get(error.reason, error.remedy) if error.remedy == declared else error.remedy
