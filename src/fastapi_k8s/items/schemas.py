"""What goes in and out."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("PostgreSQL cannot store the NUL character")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]


class ItemContent(BaseModel, extra="forbid"):
    """What a client says about an item."""

    name: Annotated[Text, Field(min_length=1, max_length=200, examples=["Lamp"])]
    description: Annotated[Text, Field(max_length=10_000, examples=["For the desk."])] | None = None


class Item(BaseModel):
    """An item as it is stored. `id` is a UUIDv7, times are in UTC."""

    id: UUID
    name: str = Field(examples=["Lamp"])
    description: str | None = Field(examples=["For the desk."])
    created_at: datetime
    updated_at: datetime

    def json_bytes(self) -> bytes:
        """The representation: what is answered, cached and tagged."""
        return self.model_dump_json().encode()


class ItemPage(BaseModel):
    """Some items, newest first. `next_cursor` is null on the last page."""

    items: list[Item]
    next_cursor: str | None


def encode_cursor(last: UUID) -> str:
    """An opaque cursor for the page behind the item `last`."""
    return urlsafe_b64encode(last.bytes).decode().rstrip("=")


def decode_cursor(cursor: str) -> UUID:
    """The id in a cursor of `encode_cursor`. Raises ValueError for anything else."""
    try:
        last = UUID(bytes=urlsafe_b64decode(f"{cursor}=="))
    except ValueError:
        last = None
    if last is None or encode_cursor(last) != cursor:  # the decoder passes over what it cannot read
        raise ValueError("is not a cursor; take one from next_cursor")
    return last


class ListQuery(BaseModel, extra="forbid"):
    """Which page of the list."""

    limit: int = Field(20, ge=1, le=100)
    cursor: Annotated[UUID, BeforeValidator(decode_cursor, str)] | None = None


class NoQuery(BaseModel, extra="forbid"):
    """Refuses every query parameter."""
