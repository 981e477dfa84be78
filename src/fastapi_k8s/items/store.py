"""Items in PostgreSQL, with the cache in front of the reads of one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ..cache import Cache
from ..conditional import check_match
from ..database import Connection, Database
from ..errors import ProblemError
from .schemas import Item, ItemContent

COLUMNS = "id, name, description, created_at, updated_at"
INSERT = f"INSERT INTO items (name, description) VALUES ($1, $2) RETURNING {COLUMNS}"
FIND = f"SELECT {COLUMNS} FROM items WHERE id = $1"
# UUIDv7 ids grow with time: the primary key is the order, and the place of a cursor in it.
LIST = f"SELECT {COLUMNS} FROM items WHERE id < $1 ORDER BY id DESC LIMIT $2"
# clock_timestamp(): whoever waited for the row began before the one it waited for.
UPDATE = f"""UPDATE items SET name = $2, description = $3, updated_at = clock_timestamp()
WHERE id = $1 RETURNING {COLUMNS}"""


async def insert(connection: Connection, content: ItemContent) -> Item:
    """Add an item in the caller's transaction."""
    return _item(await connection.fetchrow(INSERT, content.name, content.description))


@dataclass(frozen=True)
class ItemStore:
    """Refuses an id that is not there (404)."""

    database: Database
    cache: Cache

    async def page(self, after: UUID | None, limit: int) -> list[Item]:
        """At most `limit` items, newest first, from behind the item `after`."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(LIST, after or UUID(int=2**128 - 1), limit)
        return [_item(row) for row in rows]

    async def read(self, item_id: UUID) -> bytes:
        """The item's representation."""

        async def load() -> bytes:
            async with self.database.connection() as connection:
                return _item(await connection.fetchrow(FIND, item_id)).json_bytes()

        return await self.cache.read(f"items:{item_id}", load)

    async def replace(self, item_id: UUID, content: ItemContent, if_match: str) -> bytes:
        """Replace the version that `if_match` names, and return the new representation."""
        async with self._writing(item_id, if_match) as connection:
            row = await connection.fetchrow(UPDATE, item_id, content.name, content.description)
        return _item(row).json_bytes()

    async def delete(self, item_id: UUID, if_match: str | None) -> None:
        """Delete the item; only the version that `if_match` names, if it is given."""
        async with self._writing(item_id, if_match) as connection:
            await connection.execute("DELETE FROM items WHERE id = $1", item_id)

    @asynccontextmanager
    async def _writing(self, item_id: UUID, if_match: str | None) -> AsyncIterator[Connection]:
        try:
            async with self.database.transaction() as connection:
                current = _item(await connection.fetchrow(f"{FIND} FOR UPDATE", item_id))
                check_match(if_match, current.json_bytes())
                yield connection
        finally:
            # Whatever happened: an error does not tell whether PostgreSQL has committed.
            await self.cache.drop(f"items:{item_id}")


def _item(row: Any) -> Item:
    if row is None:
        raise ProblemError(404, "There is no such item.")
    return Item.model_construct(**row)  # what comes from PostgreSQL needs no validation
