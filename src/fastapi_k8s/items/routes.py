"""/items over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from ..conditional import MAY_BE_KNOWN, IfMatch, IfMatchIfGiven, tagged
from ..database import Connection
from ..errors import refuse_query
from ..idempotency import IdempotencyKey, once
from .schemas import Item, ItemContent, ItemPage, ListQuery
from .store import ItemStore, insert

router = APIRouter(prefix="/items", tags=["items"])


def _store(request: Request) -> ItemStore:
    # Called, not injected: FastAPI takes half as long to inject it as PostgreSQL to read an item.
    return ItemStore(request.state.database, request.state.cache)


@router.post("", status_code=201, response_model=Item)
async def create_item(
    content: ItemContent, request: Request, idempotency_key: IdempotencyKey = None
) -> Response:
    """Create an item. With an Idempotency-Key, a retry gets the first answer again."""
    refuse_query(request)

    async def create(connection: Connection) -> Response:
        item = await insert(connection, content)
        response = tagged(item.json_bytes())
        response.status_code = 201
        response.headers["Location"] = f"{request.scope['root_path']}/items/{item.id}"
        return response

    return await once(request, idempotency_key, create)


@router.get("")
async def list_items(query: Annotated[ListQuery, Query()], request: Request) -> ItemPage:
    """List items, newest first. Items created meanwhile do not shift the pages that follow."""
    after = UUID(bytes=query.cursor) if query.cursor else None
    found = await _store(request).page(after, query.limit + 1)
    items = found[: query.limit]
    next_cursor = items[-1].id.bytes if len(found) > len(items) else None
    return ItemPage.model_construct(items=items, next_cursor=next_cursor)


@router.get("/{item_id}", response_model=Item, openapi_extra=MAY_BE_KNOWN)
async def read_item(item_id: UUID, request: Request) -> Response:
    """Read an item; with If-None-Match only if it is another version."""
    refuse_query(request)
    return tagged(await _store(request).read(item_id), request.headers.get("if-none-match"))


@router.put("/{item_id}", response_model=Item)
async def replace_item(
    item_id: UUID, content: ItemContent, request: Request, if_match: IfMatch
) -> Response:
    """Replace an item. Refused without If-Match (428) and if it has changed since (412)."""
    refuse_query(request)
    return tagged(await _store(request).replace(item_id, content, if_match))


@router.delete("/{item_id}", status_code=204)
async def delete_item(item_id: UUID, request: Request, if_match: IfMatchIfGiven = None) -> None:
    """Delete an item; with If-Match only if it has not changed since."""
    refuse_query(request)
    await _store(request).delete(item_id, if_match)
