"""The path operations of /items."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from ..auth import require_scope
from ..conditional import (
    CONDITIONAL_GET_OPENAPI,
    ETAG_HEADER,
    PreconditionsDep,
    RequiredPreconditionsDep,
    json_response_with_etag,
    read_preconditions,
)
from ..connection_pool import Connection
from ..dependencies import get_cache, get_database
from ..idempotency import IdempotentRequestDep, run_idempotently
from ..openapi import problem_responses
from .schemas import Item, ItemContent, ItemPage, ItemPageQuery, decode_cursor, encode_cursor
from .store import ItemStore, insert_item

LOCATION_HEADER = {
    "Location": {
        "description": "The path of the new item.",
        "required": True,
        "schema": {"type": "string"},
    }
}
ID = {"item_id": "$response.body#/id"}
IF_MATCH = {"header.If-Match": "$response.header.ETag"}
IF_NONE_MATCH = {"header.If-None-Match": "$response.header.ETag"}
LINKS = {
    "read": {"operationId": "read_item", "parameters": ID},
    "read_if_changed": {"operationId": "read_item", "parameters": ID | IF_NONE_MATCH},
    "replace": {"operationId": "replace_item", "parameters": ID | IF_MATCH},
    "delete": {"operationId": "delete_item", "parameters": ID | IF_MATCH},
}
"""The operations on the item of a response, with the parameters that the response contains."""

CAN_READ = require_scope("items:read")
CAN_WRITE = require_scope("items:write")

router = APIRouter(prefix="/items", tags=["items"], responses=problem_responses(422, 503))


async def get_item_store(request: Request) -> ItemStore:
    """The store of the items.

    Calls `get_database` and `get_cache` itself instead of declaring them, because two more
    dependencies would add 7 µs to a read (docs/decisions/0014-async-dependencies.md).
    """
    return ItemStore(await get_database(request), await get_cache(request))


ItemStoreDep = Annotated[ItemStore, Depends(get_item_store)]


# Most frequent first: FastAPI tries the routes in this order.


@router.get(
    "/{item_id}",
    response_model=Item,
    responses={200: {"headers": ETAG_HEADER, "links": LINKS}, **problem_responses(404)},
    openapi_extra=CONDITIONAL_GET_OPENAPI,
    dependencies=[CAN_READ],
)
async def read_item(item_id: UUID, items: ItemStoreDep, request: Request) -> Response:
    """Read an item. With If-None-Match the response is 304 if the item has not changed."""
    body = await items.read(item_id)
    return json_response_with_etag(body, preconditions=read_preconditions(request))


@router.get("", dependencies=[CAN_READ])
async def list_items(query: Annotated[ItemPageQuery, Query()], items: ItemStoreDep) -> ItemPage:
    """List items, newest first. Items created between two requests do not shift later pages."""
    after = decode_cursor(query.cursor) if query.cursor else None
    # One more than the page has, to see whether another page follows.
    rows = await items.list(after, query.limit + 1)
    page = rows[: query.limit]
    has_next = len(rows) > query.limit
    next_cursor = encode_cursor(page[-1].id) if has_next else None
    return ItemPage(items=page, next_cursor=next_cursor)


@router.post(
    "",
    status_code=201,
    response_model=Item,
    responses={
        201: {"headers": ETAG_HEADER | LOCATION_HEADER, "links": LINKS},
        **problem_responses(400, 409, 413, 415),
    },
    dependencies=[CAN_WRITE],
)
async def create_item(
    content: ItemContent, idempotent_request: IdempotentRequestDep, request: Request
) -> Response:
    """Create an item. A retry with the same Idempotency-Key gets the first response again."""

    async def create(connection: Connection) -> Response:
        item = await insert_item(connection, content)
        response = json_response_with_etag(item.json_bytes(), status=201)
        response.headers["Location"] = f"{request.scope['root_path']}/items/{item.id}"
        return response

    return await run_idempotently(idempotent_request, create)


@router.put(
    "/{item_id}",
    response_model=Item,
    responses={
        200: {"headers": ETAG_HEADER, "links": LINKS},
        **problem_responses(400, 404, 412, 413, 415, 428),
    },
    dependencies=[CAN_WRITE],
)
async def replace_item(
    item_id: UUID,
    content: ItemContent,
    preconditions: RequiredPreconditionsDep,
    items: ItemStoreDep,
) -> Response:
    """Replace an item. The response is 428 without If-Match, and 412 if the item has changed."""
    body = await items.replace(item_id, content, preconditions)
    return json_response_with_etag(body)


@router.delete(
    "/{item_id}",
    status_code=204,
    responses=problem_responses(404, 412),
    dependencies=[CAN_WRITE],
)
async def delete_item(item_id: UUID, preconditions: PreconditionsDep, items: ItemStoreDep) -> None:
    """Delete an item. With If-Match the response is 412 if the item has changed."""
    await items.delete(item_id, preconditions)
