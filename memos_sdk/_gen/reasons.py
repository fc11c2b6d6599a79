"""Error reasons of MIP v1, generated from errors.proto by tools/gen_reasons.py."""

from typing import NamedTuple


class Reason(NamedTuple):
    """What an error reason means to a client."""

    code: str
    remedy: str
    retryable: bool


REASONS: dict[str, Reason] = {
    'UNAUTHENTICATED': Reason('UNAUTHENTICATED', "Send metadata 'authorization: Bearer TOKEN'; on the server's machine `memos token show` prints the local one.", False),
    'TOKEN_INVALID': Reason('UNAUTHENTICATED', 'Ask an administrator of this server for a new token.', False),
    'TOKEN_EXPIRED': Reason('UNAUTHENTICATED', 'Issue a new token with IssueToken (`memos token issue`).', False),
    'TOKEN_REVOKED': Reason('UNAUTHENTICATED', 'Ask an administrator of this server for a new token.', False),
    'PERMISSION_DENIED': Reason('PERMISSION_DENIED', 'Check the name, or ask an administrator of the cube for a grant with the role that the call needs.', False),
    'CUBE_NOT_FOUND': Reason('NOT_FOUND', 'Check the name with ListCubes, or create the cube first.', False),
    'MEMORY_NOT_FOUND': Reason('NOT_FOUND', 'Check the name with ListMemories; show_deleted includes deleted ones.', False),
    'REVISION_NOT_FOUND': Reason('NOT_FOUND', "Choose a revision between 1 and the cube's current one (ListCommits).", False),
    'SESSION_NOT_FOUND': Reason('NOT_FOUND', 'Check the name with ListSessions, or create the session first.', False),
    'PRINCIPAL_NOT_FOUND': Reason('NOT_FOUND', 'Check the name with ListPrincipals, or create the principal first.', False),
    'GRANT_NOT_FOUND': Reason('NOT_FOUND', 'Check principal and resource with ListGrants.', False),
    'BLOB_NOT_FOUND': Reason('NOT_FOUND', 'Upload the blob to this cube with WriteBlob first.', False),
    'JOB_NOT_FOUND': Reason('NOT_FOUND', 'Check the name with ListJobs.', False),
    'RELATION_NOT_FOUND': Reason('NOT_FOUND', 'Check the relation with ListRelations.', False),
    'TOKEN_NOT_FOUND': Reason('NOT_FOUND', 'Check the token id; it is the `jti` that IssueToken returned.', False),
    'ALREADY_EXISTS': Reason('ALREADY_EXISTS', 'Choose another id, or leave it empty and the server makes one; a deleted resource is restored, not created again.', False),
    'ETAG_MISMATCH': Reason('ABORTED', 'Read the resource again, apply the change to what it is now, and send its new etag.', False),
    'REVISION_MISMATCH': Reason('ABORTED', 'Read the cube again and decide on its current revision.', False),
    'REQUEST_ID_REUSED': Reason('INVALID_ARGUMENT', 'Use a new UUID for each new request; repeat one only with an identical body.', False),
    'CUBE_DELETED': Reason('FAILED_PRECONDITION', 'Restore it with UndeleteCube (`memos cube undelete`).', False),
    'CUBE_PURGED': Reason('FAILED_PRECONDITION', 'Create a new cube; purged content cannot be restored.', False),
    'MEMORY_PURGED': Reason('FAILED_PRECONDITION', 'Add a new memory; purged content cannot be restored.', False),
    'INVALID_TRANSITION': Reason('FAILED_PRECONDITION', 'See the states that MemoryState permits; metadata names the current one.', False),
    'SESSION_ENDED': Reason('FAILED_PRECONDITION', 'Create a new session.', False),
    'PRINCIPAL_DISABLED': Reason('FAILED_PRECONDITION', 'Create another principal; a disabled one stays disabled.', False),
    'EMBEDDER_UNAVAILABLE': Reason('FAILED_PRECONDITION', 'Install the weights with `memos models add minilm` and restart, send a vector, or search by words alone (SEARCH_MODE_LEXICAL, `--mode lexical`).', False),
    'LAST_ADMIN': Reason('FAILED_PRECONDITION', 'Make another principal administrator first.', False),
    'UPLOAD_INCOMPLETE': Reason('FAILED_PRECONDITION', 'Ask QueryWrite how much arrived, send the rest and finish.', False),
    'INVALID_FIELD': Reason('INVALID_ARGUMENT', 'Correct the named field.', False),
    'FIELD_REQUIRED': Reason('INVALID_ARGUMENT', 'Set the named field.', False),
    'FIELD_TOO_LARGE': Reason('INVALID_ARGUMENT', 'Shorten the named field to its limit, or split the request.', False),
    'TOO_MANY_ITEMS': Reason('INVALID_ARGUMENT', 'Split the request into several.', False),
    'INVALID_NAME': Reason('INVALID_ARGUMENT', 'Write names as the specification has them, such as cubes/notes/memories/m1.', False),
    'INVALID_FILTER': Reason('INVALID_ARGUMENT', 'See docs/spec/filter.md for the grammar and the fields.', False),
    'INVALID_PAGE_TOKEN': Reason('INVALID_ARGUMENT', 'Repeat the call with the arguments that produced the token, or start again without one.', False),
    'INVALID_VECTOR': Reason('INVALID_ARGUMENT', "Send little-endian finite numbers, dimension times the dtype's size in bytes.", False),
    'DIMENSION_MISMATCH': Reason('INVALID_ARGUMENT', 'Use the model and dimension that GetCube and GetCapabilities name.', False),
    'MODEL_MISMATCH': Reason('INVALID_ARGUMENT', 'Embed with the model that the cube names as embedding_model.', False),
    'MALFORMED_MESSAGE': Reason('INVALID_ARGUMENT', 'Encode the request with the published protos; strings are UTF-8.', False),
    'INVALID_JSON': Reason('INVALID_ARGUMENT', 'Send one valid JSON object without duplicate keys.', False),
    'INVALID_MASK': Reason('INVALID_ARGUMENT', "Name only fields that the RPC's comment lists as updatable.", False),
    'CONFLICTING_ARGUMENTS': Reason('INVALID_ARGUMENT', 'Send only one of the named arguments.', False),
    'UNKNOWN_PAYLOAD': Reason('INVALID_ARGUMENT', 'Send a payload that GetCapabilities lists.', False),
    'DIGEST_MISMATCH': Reason('INVALID_ARGUMENT', 'Send the bytes whose SHA-256 and size the header announces.', False),
    'INVALID_STREAM': Reason('INVALID_ARGUMENT', 'Send a header, then data frames in order of offset, then finish.', False),
    'QUOTA_EXCEEDED': Reason('RESOURCE_EXHAUSTED', 'Wait as long as RetryInfo says, or ask an administrator for a larger quota.', True),
    'RESPONSE_TOO_LARGE': Reason('RESOURCE_EXHAUSTED', 'Ask for fewer items at once.', False),
    'WATCH_TOO_SLOW': Reason('RESOURCE_EXHAUSTED', 'Watch again from the revision after last_revision.', True),
    'REQUEST_TOO_LARGE': Reason('RESOURCE_EXHAUSTED', 'Split the request; GetCapabilities names the limits.', False),
    'STORAGE_FULL': Reason('RESOURCE_EXHAUSTED', 'Free disk space in the data folder; nothing acknowledged was lost.', False),
    'BACKEND_UNAVAILABLE': Reason('UNAVAILABLE', 'Try again as RetryInfo says; `memos doctor` names the part.', True),
    'SHUTTING_DOWN': Reason('UNAVAILABLE', 'Try again in a moment or on another server.', True),
    'DEADLINE_EXCEEDED': Reason('DEADLINE_EXCEEDED', 'Repeat the call with the same request_id and a longer deadline.', True),
    'CANCELLED': Reason('CANCELLED', 'Repeat the call with the same request_id if its effect is wanted.', False),
    'UNIMPLEMENTED': Reason('UNIMPLEMENTED', 'See GetCapabilities for what this server declares.', False),
    'DATA_CORRUPT': Reason('DATA_LOSS', "Run `memos doctor` on the server's machine; it names what is damaged and restores what is derived.", False),
    'INTERNAL': Reason('INTERNAL', "Report the incident id to the server's operator.", False),
}
