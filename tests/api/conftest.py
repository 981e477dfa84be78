"""The application with a resource `/things`, so that these tests do not depend on the example."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, field_validator

from fastapi_k8s.conditional import RequiredPreconditionsDep
from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve

MAX_BODY_SIZE = 200_000
router = APIRouter(prefix="/things")


class Size(BaseModel):
    width: int

    @field_validator("width")
    @classmethod
    def check_width(cls, value: int) -> int:
        if value < 0:
            raise ValueError("must not be negative")
        return value


class Thing(BaseModel, extra="forbid"):
    size: Size


@router.post("", status_code=201)
async def create_thing(thing: Thing) -> Thing:
    return thing


@router.get("/{thing_id}")
async def read_thing(thing_id: int) -> int:
    return thing_id


@router.put("/{thing_id}")
async def replace_thing(
    thing_id: int, thing: Thing, preconditions: RequiredPreconditionsDep
) -> list[str]:
    return list(preconditions.if_match)


@router.post("/{thing_id}/reports")
async def create_report(thing_id: int, tasks: BackgroundTasks) -> str:
    """Raise an exception in a background task, after the response."""

    async def report() -> None:
        raise RuntimeError("hidden") from KeyError(thing_id)

    tasks.add_task(report)
    return "accepted"


@router.delete("/{thing_id}")
async def delete_thing(thing_id: int) -> None:
    """Raise an exception that nothing handles, with a cause."""
    raise RuntimeError("hidden") from KeyError(thing_id)


@router.get("")
async def list_things() -> StreamingResponse:
    """Raise an exception after the response has begun."""

    async def stream() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("hidden")

    return StreamingResponse(stream())


@pytest.fixture
async def things(make_settings: MakeSettings, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with `/things`."""
    app = create_app(make_settings(max_body_size=MAX_BODY_SIZE))
    app.include_router(router)
    async with serve(app) as client:
        yield client
