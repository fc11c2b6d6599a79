"""Times and JSON as text; apart from `json_form`, since it needs no message."""

from __future__ import annotations

import datetime
import json
from typing import Any


def time_text(value: datetime.datetime) -> str:
    """Returns a time in RFC 3339, in UTC, to the microsecond."""
    return value.astimezone(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def dumps(value: Any) -> str:
    """Returns JSON text on one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
