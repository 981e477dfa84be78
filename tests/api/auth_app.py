"""The application with authentication, and with a resource `/things` that requires scopes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse

from fastapi_k8s.auth import configure_router, require_scope
from fastapi_k8s.caller import Caller
from fastapi_k8s.main import create_app
from fastapi_k8s.settings import Settings
from tests.conftest import MakeSettings, Serve
from tests.issuer import AUDIENCE, Issuer

router = APIRouter(prefix="/things")


@router.get("", dependencies=[require_scope("things:read")])
async def list_things() -> list[str]:
    return ["thing"]


@router.post("", dependencies=[require_scope("things:read", "things:write")])
async def create_thing() -> str:
    return "created"


@router.get("/caller")
async def read_caller(caller: Annotated[Caller, require_scope()]) -> dict[str, Any]:
    return {
        "subject": caller.subject,
        "scopes": sorted(caller.scopes),
        "email": caller.claims.get("email"),
    }


async def get_text(_: Request) -> PlainTextResponse:
    return PlainTextResponse("open")


# A route of Starlette has no dependencies, and not the prefix of the router.
router.add_route("/text", get_text)


def create_app_with_things(settings: Settings) -> FastAPI:
    """The application, with `/things`."""
    app = create_app(settings)
    app.include_router(configure_router(router, settings))
    return app


@asynccontextmanager
async def serving_things(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with `/things`, which trusts the issuer."""
    defaults = {"jwt_issuer": issuer.url, "jwt_audience": AUDIENCE, "request_timeout": 60}
    all_settings = {**defaults, **settings}
    async with serve(create_app_with_things(make_settings(**all_settings))) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    """The header with an access token."""
    return {"Authorization": f"Bearer {token}"}
