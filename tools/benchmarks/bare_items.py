"""FastAPI, asyncpg and one handler: what GET /items/{id} costs without all that is around it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
from fastapi import FastAPI, Request

from fastapi_k8s.items.schemas import Item

from . import bare

FIND = "SELECT id, name, description, created_at, updated_at FROM items WHERE id = $1"


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"]) as pool:
        yield {"pool": pool}


def application() -> FastAPI:
    """The bare application with a pool, that answers GET /items/{id} too."""
    app = bare.application(lifespan=_lifespan)

    @app.get("/items/{item_id}")
    async def read_item(item_id: UUID, request: Request) -> Item:
        return Item(**await request.state.pool.fetchrow(FIND, item_id))

    return app
