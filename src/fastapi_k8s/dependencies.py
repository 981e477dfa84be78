"""What the lifespan yields, as dependencies for the signatures of path operations.

They are `async def`: FastAPI runs a `def` dependency in a thread, which costs 280 µs a request
instead of 8 to 17 (docs/decisions/0014-async-dependencies.md).
"""

import asyncio
from typing import TYPE_CHECKING, Annotated, TypedDict, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection

from .cache import Cache
from .database import Database
from .readiness import Readiness
from .settings import Settings

if TYPE_CHECKING:
    from .access_tokens import TokenVerifier


class LifespanState(TypedDict):
    """What the lifespan in main.py yields, and what every request carries as its `state`."""

    settings: Settings
    database: Database
    cache: Cache
    readiness: Readiness
    draining: asyncio.Event
    token_verifier: "TokenVerifier | None"


# The parameters are an HTTPConnection, because FastAPI has no Request for a WebSocket.
def _lifespan_state(connection: HTTPConnection) -> LifespanState:
    # FastAPI does not accept the parameter type `HTTPConnection[LifespanState]`.
    return cast("LifespanState", connection.state)


async def get_settings(connection: HTTPConnection) -> Settings:
    """The settings of this process."""
    return _lifespan_state(connection)["settings"]


async def get_database(connection: HTTPConnection) -> Database:
    """The PostgreSQL pool."""
    return _lifespan_state(connection)["database"]


async def get_cache(connection: HTTPConnection) -> Cache:
    """The Redis cache."""
    return _lifespan_state(connection)["cache"]


async def get_readiness(connection: HTTPConnection) -> Readiness:
    """The readiness checks."""
    return _lifespan_state(connection)["readiness"]


async def get_draining(connection: HTTPConnection) -> asyncio.Event:
    """The event that is set when the worker begins to drain, and when the server stops.

    A stream that ends then lets its client continue on another pod (docs/streams.md).
    """
    return _lifespan_state(connection)["draining"]


async def get_token_verifier(connection: HTTPConnection) -> "TokenVerifier | None":
    """The verifier of access tokens, or None if JWT_ISSUER is not set."""
    return _lifespan_state(connection)["token_verifier"]


SettingsDep = Annotated[Settings, Depends(get_settings)]
DatabaseDep = Annotated[Database, Depends(get_database)]
CacheDep = Annotated[Cache, Depends(get_cache)]
ReadinessDep = Annotated[Readiness, Depends(get_readiness)]
DrainingDep = Annotated[asyncio.Event, Depends(get_draining)]
