"""/health, /ready and /version.

See https://kubernetes.io/docs/concepts/workloads/pods/probes/ for liveness and readiness.
"""

import platform
from typing import Literal

from fastapi import Request, Response
from pydantic import BaseModel, Field

from . import NAME
from .dependencies import ReadinessDep, SettingsDep
from .readiness import ReadinessReport


class Health(BaseModel):
    """The process responds."""

    status: Literal["ok"] = "ok"


class Version(BaseModel):
    """The release that is running."""

    name: str = NAME
    version: str = Field(examples=["1.0.0"])
    commit: str = Field(examples=["4f2a9c1"])
    python: str = Field(examples=["3.14.0"])


async def get_health() -> Health:
    """Liveness: the process responds. It depends on nothing else."""
    return Health()


async def get_ready(readiness: ReadinessDep, response: Response) -> ReadinessReport:
    """Readiness: whether this process should receive requests."""
    report = await readiness.report()
    if report.status != "ready":
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return report


async def get_version(settings: SettingsDep, request: Request) -> Version:
    """The release that is running."""
    return Version(
        version=request.app.version,
        commit=settings.git_sha,
        python=platform.python_version(),
    )
