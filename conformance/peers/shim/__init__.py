"""What the shims share: MIP on the wire, in front of a library that knows nothing of MIP.

A shim keeps nothing of its own: no log, no index, no cache, no remembered requests. Every answer is made from what the
library returned to that call. What the library cannot do is refused.
"""
