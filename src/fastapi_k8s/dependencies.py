"""What the lifespan yields, as dependencies for the signatures of path operations.

They are `async def`: FastAPI runs a `def` dependency in a thread, which costs 280 µs a request
instead of 8 to 17 (docs/decisions/0014-async-dependencies.md).
"""

from typing import Annotated, TypedDict, cast

from fastapi import Depends, Request

from .cache import Cache
from .database import Database
from .readiness import Readiness
from .settings import Settings


class LifespanState(TypedDict):
    """What the lifespan in main.py yields, and what every request carries as its `state`."""

    settings: Settings
    database: Database
    cache: Cache
    readiness: Readiness


def _lifespan_state(request: Request) -> LifespanState:
    # FastAPI does not accept the parameter type `Request[LifespanState]`.
    return cast("LifespanState", request.state)


async def get_settings(request: Request) -> Settings:
    """The settings of this process."""
    return _lifespan_state(request)["settings"]


async def get_database(request: Request) -> Database:
    """The PostgreSQL pool."""
    return _lifespan_state(request)["database"]


async def get_cache(request: Request) -> Cache:
    """The Redis cache."""
    return _lifespan_state(request)["cache"]


async def get_readiness(request: Request) -> Readiness:
    """The readiness checks."""
    return _lifespan_state(request)["readiness"]


SettingsDep = Annotated[Settings, Depends(get_settings)]
DatabaseDep = Annotated[Database, Depends(get_database)]
CacheDep = Annotated[Cache, Depends(get_cache)]
ReadinessDep = Annotated[Readiness, Depends(get_readiness)]
