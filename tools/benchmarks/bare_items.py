"""A bare FastAPI application with asyncpg: the baseline of reading and creating one item.

The models are its own, so that a change of the service's does not change the baseline.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

from . import bare

COLUMNS = "id, name, description, created_at, updated_at"
SELECT = f"SELECT {COLUMNS} FROM items WHERE id = $1"
INSERT = f"INSERT INTO items (name, description) VALUES ($1, $2) RETURNING {COLUMNS}"


class ItemContent(BaseModel):
    """What a client sends."""

    name: str
    description: str | None = None


class Item(ItemContent):
    """A row."""

    id: UUID
    created_at: datetime
    updated_at: datetime


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Open a pool with asyncpg's defaults, as `request.state.pool`."""
    async with asyncpg.create_pool(os.environ["DATABASE_URL"]) as pool:
        yield {"pool": pool}


def create_app() -> FastAPI:
    """The bare application with GET /items/{id} and POST /items."""
    app = bare.create_app(lifespan=lifespan)

    @app.get("/items/{item_id}")
    async def read_item(item_id: UUID, request: Request) -> Item:
        row = await request.state.pool.fetchrow(SELECT, item_id)
        if row is None:
            raise HTTPException(404)
        return Item(**row)

    @app.post("/items", status_code=201)
    async def create_item(content: ItemContent, request: Request) -> Item:
        row = await request.state.pool.fetchrow(INSERT, content.name, content.description)
        return Item(**row)

    return app
