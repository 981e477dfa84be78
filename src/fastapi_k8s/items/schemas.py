"""What the API accepts and returns."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Base64UrlBytes, BaseModel, Field

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


class ItemPage(BaseModel):
    """A page of items, newest first. `next_cursor` is null on the last page."""

    items: list[Item]
    next_cursor: Base64UrlBytes | None


class ItemPageQuery(BaseModel, extra="forbid"):
    """Which page to list. A cursor is the id of the last item seen, as opaque text."""

    limit: int = Field(20, ge=1, le=100)
    cursor: Base64UrlBytes | None = Field(None, min_length=16, max_length=16)
