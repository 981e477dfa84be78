"""Whether this process can serve requests: the checks behind /ready."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from time import monotonic
from typing import Literal

import asyncpg
from pydantic import BaseModel, Field

from .cache import Cache
from .database import Database, DatabaseUnavailableError

FIND_STATE = """
SELECT version_num, current_setting('transaction_read_only')::boolean AS is_read_only
FROM alembic_version
"""

CHECK_TIMEOUT_SECONDS = 1.0
"""When a check without a result counts as failed."""

REPORT_SECONDS = 1.0
"""How long a report is shared, counted from the start of its checks: probes must not add load."""


class ReadinessReport(BaseModel):
    """The result of the checks. Only `database` decides: the service works without a cache.

    `checks` is empty while the process drains.
    """

    status: Literal["ready", "unready", "draining"] = Field(examples=["ready"])
    checks: dict[str, str] = Field(examples=[{"database": "ok", "cache": "ok"}])


@dataclass
class Readiness:
    """The checks of this process. `needed_revision` is the schema revision that its code needs.

    `database` has its own connection: a busy pool does not mean that PostgreSQL is down. The worker
    sets `is_draining` after SIGTERM, but not for `max_requests`, with which the pod stays ready.
    """

    database: Database
    cache: Cache
    needed_revision: str
    is_draining: bool = False
    _report: asyncio.Future[ReadinessReport] | None = None
    _report_expires_at: float = 0

    async def report(self) -> ReadinessReport:
        """The current report. Concurrent callers share the checks."""
        if self.is_draining:
            return ReadinessReport(status="draining", checks={})
        if self._report is None or monotonic() >= self._report_expires_at:
            self._report_expires_at = monotonic() + REPORT_SECONDS
            self._report = asyncio.create_task(self._run_checks())
        # Shielded: a prober that disconnects must not cancel the checks of the others.
        return await asyncio.shield(self._report)

    async def _run_checks(self) -> ReadinessReport:
        database, cache = await asyncio.gather(
            _with_timeout(self._check_schema()),
            _with_timeout(self.cache.status()),
        )
        status: Literal["ready", "unready"] = "ready" if database == "ok" else "unready"
        return ReadinessReport(status=status, checks={"database": database, "cache": cache})

    async def _check_schema(self) -> str:
        try:
            async with self.database.connection() as connection:
                state = await connection.fetchrow(FIND_STATE)
                if state is not None and state["is_read_only"]:
                    # The server is a standby. The next check may reach the new primary.
                    self.database.pool.expire(connection)
                    return "read-only"
        except DatabaseUnavailableError:
            return "unreachable"
        except asyncpg.UndefinedTableError:  # the database has no schema yet
            return "behind"
        if state is None:
            return "behind"
        # Revisions are digits of equal length, so they compare as text. A newer schema must stay
        # compatible with this release.
        return "ok" if state["version_num"] >= self.needed_revision else "behind"


async def _with_timeout(check: Awaitable[str]) -> str:
    """The result of `check`, or `timeout` after CHECK_TIMEOUT_SECONDS.

    The check continues until its own time limits end it. If it were cancelled, asyncpg would first
    wait for the server, which may hang.
    """
    done, _ = await asyncio.wait([asyncio.ensure_future(check)], timeout=CHECK_TIMEOUT_SECONDS)
    return done.pop().result() if done else "timeout"
