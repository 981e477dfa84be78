"""/health, /ready (https://kubernetes.io/docs/concepts/workloads/pods/probes/) and /version."""

import asyncio
import platform
from collections.abc import Awaitable
from dataclasses import dataclass, field
from time import monotonic

from fastapi import Request, Response
from pydantic import BaseModel, Field

from . import NAME
from .cache import Cache
from .database import Database
from .errors import ProblemError

CHECK_TIMEOUT = 1.0  # seconds until a check that has not answered counts as failed
MAX_AGE = 1.0  # seconds from its start that a report is kept, so that probes are no load


class Ready(BaseModel):
    """`database` decides; without the cache the service is slower, not unready."""

    status: str = Field(examples=["ready"])
    checks: dict[str, str] = Field(examples=[{"database": "ok", "cache": "ok"}])


class Version(BaseModel):
    name: str = NAME
    version: str = Field(examples=["1.0.0"])
    commit: str = Field(examples=["4f2a9c1"])
    python: str = Field(examples=["3.14.0"])


@dataclass
class Readiness:
    """Whether this process can serve. `needed` is the revision that its code needs."""

    # With a connection of its own: a busy pool is not a dead database.
    database: Database
    cache: Cache
    needed: str
    draining: bool = False
    _report: asyncio.Future[Ready] = field(init=False)
    _expires: float = 0

    async def report(self) -> Ready:
        """The report of a moment ago, or a new one, which concurrent callers share."""
        if self.draining:
            return Ready(status="draining", checks={})
        if monotonic() >= self._expires:
            self._expires = monotonic() + MAX_AGE
            self._report = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._report)

    async def _ask(self) -> Ready:
        asked = _limited(self._schema()), _limited(self.cache.status())
        database, cache = await asyncio.gather(*asked)
        status = "ready" if database == "ok" else "unready"
        return Ready(status=status, checks={"database": database, "cache": cache})

    async def _schema(self) -> str:
        try:
            async with self.database.connection() as connection:
                found = await connection.fetchval("SELECT version_num FROM alembic_version")
        except ProblemError:
            return "unreachable"
        # Numbers of one length. One that is ahead is a newer release's, made to suit us too.
        return "ok" if (found or "") >= self.needed else "behind"


async def _limited(check: Awaitable[str]) -> str:
    # Not cancelled: asyncpg would first wait for a server that hangs. It ends by its own limits.
    done, _ = await asyncio.wait([asyncio.ensure_future(check)], timeout=CHECK_TIMEOUT)
    return done.pop().result() if done else "timeout"


async def health() -> dict[str, str]:
    """Liveness: the process answers. Touches nothing."""
    return {"status": "ok"}


async def ready(request: Request, response: Response) -> Ready:
    """Readiness: whether requests should be sent here."""
    report: Ready = await request.state.readiness.report()
    response.status_code = 200 if report.status == "ready" else 503
    return report


async def running_version(request: Request) -> Version:
    """Which release is running."""
    version, commit = request.app.version, request.state.settings.git_sha
    return Version(version=version, commit=commit, python=platform.python_version())
