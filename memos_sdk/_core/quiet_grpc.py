"""grpc, imported so that its C core does not print log lines of its own before the SDK's errors.

The core reads GRPC_VERBOSITY once, while it is imported. What the user set wins; a grpc that is imported already stays
as it is; and the environment is left as it was found, so that other processes are not meant.
"""

from __future__ import annotations

import os

_NAME = "GRPC_VERBOSITY"
_given = os.environ.get(_NAME)
if _given is None:
    os.environ[_NAME] = "NONE"
try:
    import grpc
    import grpc.aio
finally:
    if _given is None:
        os.environ.pop(_NAME, None)

__all__ = ["grpc"]
