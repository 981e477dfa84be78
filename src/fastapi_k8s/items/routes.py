"""/items over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from ..conditional import IfMatch, IfMatchIfGiven, IfNoneMatch, entity_tag, tagged
from ..database import Connection
from ..idempotency import IdempotencyKey, once
from .schemas import Item, ItemContent, ItemPage, ListQuery, NoQuery
from .store import ItemStore, insert


async def item_store(request: Request) -> ItemStore:
    return ItemStore(request.state.database, request.state.cache)


Store = Annotated[ItemStore, Depends(item_store)]
Nothing = Annotated[NoQuery, Query()]
router = APIRouter(prefix="/items", tags=["items"])


@router.post("", status_code=201, response_model=Item)
async def create_item(
    content: ItemContent, request: Request, _: Nothing, idempotency_key: IdempotencyKey = None
) -> Response:
    """Create an item. With an Idempotency-Key, a retry gets the first answer again."""

    async def create(connection: Connection) -> Response:
        item = await insert(connection, content)
        body = item.json_bytes()
        location = f"{request.scope['root_path']}/items/{item.id}"
        headers = {"Location": location, "ETag": entity_tag(body)}
        return Response(body, 201, headers, media_type="application/json")

    return await once(request, idempotency_key, create)


@router.get("")
async def list_items(query: Annotated[ListQuery, Query()], store: Store) -> ItemPage:
    """List items, newest first. Items created meanwhile do not shift the pages that follow."""
    after = UUID(bytes=query.cursor) if query.cursor else None
    found = await store.page(after, query.limit + 1)
    items = found[: query.limit]
    more = len(found) > len(items)
    next_cursor = items[-1].id.bytes if more else None
    return ItemPage.model_construct(items=items, next_cursor=next_cursor)


@router.get("/{item_id}", response_model=Item, responses={304: {"description": "Not Modified"}})
async def read_item(
    item_id: UUID, store: Store, _: Nothing, if_none_match: IfNoneMatch = None
) -> Response:
    """Read an item; with If-None-Match only if it is another version."""
    return tagged(await store.read(item_id), if_none_match)


@router.put("/{item_id}", response_model=Item)
async def replace_item(
    item_id: UUID, content: ItemContent, store: Store, _: Nothing, if_match: IfMatch
) -> Response:
    """Replace an item. Refused without If-Match (428) and if it has changed since (412)."""
    return tagged(await store.replace(item_id, content, if_match))


@router.delete("/{item_id}", status_code=204)
async def delete_item(
    item_id: UUID, store: Store, _: Nothing, if_match: IfMatchIfGiven = None
) -> None:
    """Delete an item; with If-Match only if it has not changed since."""
    await store.delete(item_id, if_match)
