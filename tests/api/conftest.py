"""The service with a resource of the tests' own, which need not know the example's."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from fastapi_k8s.conditional import IfMatch
from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve

LIMIT = 200_000
router = APIRouter(prefix="/things")


class Size(BaseModel):
    width: int


class Thing(BaseModel, extra="forbid"):
    size: Size


@router.post("", status_code=201)
async def create(thing: Thing) -> Thing:
    return thing


@router.get("/{thing_id}")
async def read(thing_id: int) -> int:
    return thing_id


@router.put("/{thing_id}")
async def replace(thing_id: int, thing: Thing, if_match: IfMatch) -> str:
    return if_match


@router.delete("/{thing_id}")
async def delete(thing_id: int) -> None:
    """Fail as no code should."""
    raise RuntimeError("hidden") from KeyError(thing_id)


@router.get("")
async def half() -> StreamingResponse:
    """Fail in the middle of the answer."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("hidden")

    return StreamingResponse(parts())


@pytest.fixture
async def things(make_settings: MakeSettings, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service that has the resource."""
    app = create_app(make_settings(max_body_size=LIMIT))
    app.include_router(router)
    async with serve(app) as client:
        yield client
