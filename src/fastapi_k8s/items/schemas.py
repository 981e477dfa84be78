"""What the API accepts and returns."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Text without NUL, which PostgreSQL cannot store."""


class ItemContent(BaseModel, extra="forbid"):
    """The fields of an item that a client sets."""

    name: Annotated[Text, Field(min_length=1, max_length=200, examples=["Lamp"])]
    description: Annotated[Text, Field(max_length=10_000, examples=["For the desk."])] | None = None


class Item(BaseModel):
    """A stored item. `id` is a UUIDv7; times are in UTC."""

    id: UUID
    name: str = Field(examples=["Lamp"])
    description: str | None = Field(examples=["For the desk."])
    created_at: datetime
    updated_at: datetime

    def json_bytes(self) -> bytes:
        """The JSON representation: response body, cached value, and base of the ETag."""
        return self.model_dump_json().encode()


Cursor = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{21}[AQgw]==$")]
"""The id of an item in Base64, as opaque text. The pattern is that of 16 bytes."""


class ItemPage(BaseModel):
    """A page of items, newest first. `next_cursor` is null on the last page."""

    items: list[Item]
    next_cursor: Cursor | None


class ItemPageQuery(BaseModel, extra="forbid"):
    """Which page to list: the one that follows the item with the id in `cursor`."""

    limit: int = Field(20, ge=1, le=100)
    cursor: Cursor | None = None


def encode_cursor(item_id: UUID) -> str:
    """The cursor of the page that follows an item."""
    return urlsafe_b64encode(item_id.bytes).decode()


def decode_cursor(cursor: str) -> UUID:
    """The id that `encode_cursor` has encoded."""
    return UUID(bytes=urlsafe_b64decode(cursor))
