"""Numbers that grow: of audit events by the clock, of cubes, principals and grants by counters in the graph."""

from __future__ import annotations

import secrets
import time
from typing import Final

from memos_server.graph_dbs.neo4j.statements import Statements

_CHANCE_BITS: Final = 10
_NEXT: Final = """MERGE (c:Counter {name: $name}) ON CREATE SET c.value = 0 SET c.locked = true
    WITH c SET c.value = c.value + 1 RETURN c.value"""


class AuditClock:
    """Numbers audit events by this server's clock, without a counter that all servers would wait for.

    A number is the time in microseconds, always later than that of the event before, and ten bits of chance. Two
    servers that draw the same one meet at the constraint, and one of them draws again.
    """

    def __init__(self) -> None:
        """Begins now."""
        self._last = 0

    def next(self) -> int:
        """Returns the next number, below 2**62."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last << _CHANCE_BITS | secrets.randbits(_CHANCE_BITS)


async def next_number(statements: Statements, name: str) -> int:
    """Returns the next number of a counter, from 1 on; a number whose use is undone is not given again.

    Args:
        statements: Runs it in a transaction of its own, so that nobody waits for what the number is for.
        name: The counter.
    """
    rows = await statements.rows(_NEXT, name=name)
    return int(rows[0][0])
