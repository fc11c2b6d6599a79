"""Pages of what a library returned as a whole."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from conformance.peers.shim.errors import Refusal

MAX_PAGE = 1000
PAGE_BYTES = 3 * 1024 * 1024
"""What the items of a page may have together, below the 4 MiB that gRPC libraries take by default."""


def page_of(request: Any, default: int, items: Iterable[Any], key: Callable[[Any], str]) -> tuple[list[Any], str]:
    """Returns a page and the token of the next page, which is empty at the end.

    The token names the arguments, the last item that was sent and its place. The shim remembers nothing of it.

    Args:
        request: The request, with `page_size` and `page_token`.
        default: The size of a page where the request says none.
        items: All items, in order.
        key: Returns what tells an item from the others.

    Raises:
        Refusal: The token is malformed or belongs to other arguments.
    """
    arguments = type(request)()
    arguments.CopyFrom(request)
    arguments.ClearField("page_size")
    arguments.ClearField("page_token")
    digest = hashlib.sha256(arguments.SerializeToString(deterministic=True)).hexdigest()
    items = list(items)
    start = 0
    if request.page_token:
        place, last = _last_sent(request.page_token, digest)
        keys = [key(item) for item in items]
        # The libraries have no listing of a past moment: where the item is gone, rather repeat some than miss one.
        start = keys.index(last) + 1 if last in keys else place
    page: list[Any] = []
    size = 0
    for item in items[start : start + min(request.page_size or default, MAX_PAGE)]:
        size += item.ByteSize()
        if page and size > PAGE_BYTES:
            break
        page.append(item)
    if start + len(page) >= len(items):
        return page, ""
    token = json.dumps([digest, start + len(page) - 1, key(page[-1])]).encode()
    return page, base64.urlsafe_b64encode(token).decode()


def _last_sent(token: str, digest: str) -> tuple[int, str]:
    try:
        bound, place, last = json.loads(base64.urlsafe_b64decode(token.encode()))
        place = int(place)
    except (ValueError, TypeError) as error:
        raise Refusal("INVALID_PAGE_TOKEN", "the page token is malformed", "page_token") from error
    if bound != digest:
        raise Refusal("INVALID_PAGE_TOKEN", "the page token belongs to other arguments", "page_token")
    return place, str(last)
