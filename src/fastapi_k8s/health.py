"""/health, /ready and /version.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

import asyncio
import logging
import platform
from collections.abc import Awaitable
from dataclasses import dataclass, field
from importlib.metadata import version
from time import monotonic
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from . import NAME
from .cache import Cache
from .database import Database
from .errors import ProblemError
from .settings import Settings

logger = logging.getLogger(__name__)

CHECK_TIMEOUT = 1.0  # seconds until a check that has not answered counts as failed
MAX_AGE = 1.0  # seconds that a report is kept, so that probes cannot become a load


class Ready(BaseModel):
    """`database` decides; without the cache the service is slower, not unready."""

    status: Literal["ready", "unready"]
    checks: dict[str, str] = Field(examples=[{"database": "ok", "cache": "ok"}])


class Version(BaseModel):
    name: str = NAME
    version: str = Field(examples=["1.0.0"])
    commit: str = Field(examples=["4f2a9c1"])
    python: str = Field(examples=["3.14.0"])


@dataclass
class Readiness:
    """Whether this process can serve. `needed` is the revision that its code needs.

    `database` has a connection for this alone: a busy pool is not a dead database, and services
    that leave the load balancer because they are busy leave the others busier.
    """

    database: Database
    cache: Cache
    needed: str
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _last: Ready | None = None
    _expires: float = 0

    async def report(self) -> Ready:
        """The report of a moment ago, or a new one, which concurrent callers share."""
        async with self._lock:
            if self._last is None or monotonic() >= self._expires:
                self._last = await self._ask(self._last)
                self._expires = monotonic() + MAX_AGE
            return self._last

    async def _ask(self, last: Ready | None) -> Ready:
        checks = {"database": self._schema(), "cache": self.cache.status()}
        answers = await asyncio.gather(*map(_limited, checks.values()))
        found = dict(zip(checks, answers, strict=True))
        report = Ready(status="ready" if found["database"] == "ok" else "unready", checks=found)
        if report != last:
            logger.info(report.status, extra={"fields": {"checks": found}})
        return report

    async def _schema(self) -> str:
        try:
            async with self.database.connection() as connection:
                revision = await connection.fetchval("SELECT version_num FROM alembic_version")
        except ProblemError:
            return "unreachable"
        # Numbers of one length. One that is ahead is a newer release's, made to suit us too.
        return "ok" if str(revision) >= self.needed else "behind"


async def _limited(check: Awaitable[str]) -> str:
    # Not cancelled: asyncpg would first wait for a server that hangs. It ends by its own limits.
    done, _ = await asyncio.wait([asyncio.ensure_future(check)], timeout=CHECK_TIMEOUT)
    return done.pop().result() if done else "timeout"


router = APIRouter(tags=["service"])


@router.get("/health")
async def health() -> dict[Literal["status"], Literal["ok"]]:
    """Liveness: the process answers. Touches nothing."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"model": Ready, "description": "Unready"}})
async def ready(request: Request, response: Response) -> Ready:
    """Readiness: whether requests should be sent here."""
    readiness: Readiness = request.state.readiness
    report = await readiness.report()
    response.status_code = 200 if report.status == "ready" else 503
    return report


@router.get("/version")
async def running_version(request: Request) -> Version:
    """Which release is running."""
    settings: Settings = request.state.settings
    release = settings.app_version or version(NAME)
    return Version(version=release, commit=settings.git_sha, python=platform.python_version())
