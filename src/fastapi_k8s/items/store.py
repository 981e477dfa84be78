"""Items in PostgreSQL, with the cache in front of reads of a single item."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from ..cache import Cache, representation_of
from ..conditional import Preconditions
from ..connection_pool import Connection
from ..database import Database, repeat_after_schema_change
from ..errors import ProblemError
from .schemas import Item, ItemContent

COLUMNS = "id, name, description, created_at, updated_at"
REPRESENTATION = representation_of(Item)
# Validates a page in one call. A call for each item would take twice the time.
ITEM_LIST = TypeAdapter(list[Item])
GREATEST_ID = UUID(int=2**128 - 1)
INSERT = f"INSERT INTO items (name, description) VALUES ($1, $2) RETURNING {COLUMNS}"
FIND = f"SELECT {COLUMNS} FROM items WHERE id = $1"
FIND_FOR_UPDATE = f"{FIND} FOR UPDATE"
# UUIDv7 ids grow with time, so the primary key gives the order and the position of a cursor.
LIST = f"SELECT {COLUMNS} FROM items WHERE id < $1 ORDER BY id DESC LIMIT $2"
# now() is the start of the transaction. A writer that waited for the row may have started before
# the writer that it waited for, so now() could move updated_at backwards.
UPDATE = f"""
UPDATE items SET name = $2, description = $3, updated_at = clock_timestamp()
WHERE id = $1
RETURNING {COLUMNS}
"""
DELETE = "DELETE FROM items WHERE id = $1"


async def insert_item(connection: Connection, content: ItemContent) -> Item:
    """Insert an item on the connection of the caller."""
    row = await connection.fetchrow(INSERT, content.name, content.description)
    return _to_item(row)


@dataclass(frozen=True)
class ItemStore:
    """Reads, replaces and deletes items.

    All methods but `list` raise ProblemError (404) if the item does not exist. `insert_item` is a
    function, because it runs on the connection of `run_idempotently` and needs no cache.
    """

    database: Database
    cache: Cache

    async def list(self, after: UUID | None, limit: int) -> list[Item]:
        """At most `limit` items, newest first, that follow the item with the id `after`."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(LIST, after or GREATEST_ID, limit)
        return ITEM_LIST.validate_python([dict(row) for row in rows])

    async def read(self, item_id: UUID) -> bytes:
        """The JSON representation of an item."""

        async def load() -> bytes:
            async with self.database.connection() as connection:
                row = await connection.fetchrow(FIND, item_id)
            return _to_item(row).json_bytes()

        return await self.cache.get_or_load(_cache_key(item_id), REPRESENTATION, load)

    @repeat_after_schema_change
    async def replace(
        self, item_id: UUID, content: ItemContent, preconditions: Preconditions
    ) -> bytes:
        """Replace an item and return its new JSON representation.

        Raises ProblemError (412) if a precondition is not met.
        """
        async with self._write_transaction(item_id, preconditions) as connection:
            row = await connection.fetchrow(UPDATE, item_id, content.name, content.description)
        return _to_item(row).json_bytes()

    @repeat_after_schema_change
    async def delete(self, item_id: UUID, preconditions: Preconditions) -> None:
        """Delete an item.

        Raises ProblemError (412) if a precondition is not met.
        """
        async with self._write_transaction(item_id, preconditions) as connection:
            await connection.execute(DELETE, item_id)

    @asynccontextmanager
    async def _write_transaction(
        self, item_id: UUID, preconditions: Preconditions
    ) -> AsyncIterator[Connection]:
        """A transaction that has locked the row of an item. Its commit removes the cached value.

        Raises ProblemError: 404 if the item does not exist, 412 if a precondition is not met.
        """
        invalidate = partial(self.cache.invalidate, _cache_key(item_id))
        async with self.database.transaction(after_commit=invalidate) as connection:
            row = await connection.fetchrow(FIND_FOR_UPDATE, item_id)
            preconditions.check(_to_item(row).json_bytes())
            yield connection


def _cache_key(item_id: UUID) -> str:
    return f"items:{item_id}"


def _to_item(row: asyncpg.Record | None) -> Item:
    if row is None:
        raise ProblemError(404, "Item not found.")
    return Item.model_validate(dict(row))
