"""The list of items: pages that stay in order while items come and go."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


async def create(client: httpx.AsyncClient, name: str) -> str:
    answer = await client.post("/items", json={"name": name})
    assert answer.status_code == 201
    return str(answer.json()["id"])


async def pages(client: httpx.AsyncClient, limit: int) -> AsyncIterator[list[str]]:
    """The ids of each page, from the newest on."""
    cursor: dict[str, str] = {}
    while True:
        answer = await client.get("/items", params={"limit": limit, **cursor})
        assert answer.status_code == 200, answer.text
        yield [item["id"] for item in answer.json()["items"]]
        if answer.json()["next_cursor"] is None:
            return
        cursor = {"cursor": answer.json()["next_cursor"]}


async def test_an_empty_list_has_no_next_page(client: httpx.AsyncClient) -> None:
    assert (await client.get("/items")).json() == {"items": [], "next_cursor": None}


async def test_newest_first_and_a_full_last_page_ends_the_list(client: httpx.AsyncClient) -> None:
    created = [await create(client, f"{n}") for n in range(4)]
    seen = [page async for page in pages(client, limit=2)]
    assert seen == [created[:1:-1], created[1::-1]]


async def test_twenty_items_unless_told_otherwise(client: httpx.AsyncClient) -> None:
    await asyncio.gather(*(create(client, f"{n}") for n in range(21)))
    assert len((await client.get("/items")).json()["items"]) == 20


@pytest.mark.parametrize("limit", [1, 100])
async def test_limits_from_1_to_100_are_taken(client: httpx.AsyncClient, limit: int) -> None:
    assert (await client.get("/items", params={"limit": limit})).status_code == 200


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    limit=st.integers(1, 5),
    before=st.integers(0, 12),
    inserts=st.lists(st.integers(0, 3), max_size=8),
)
async def test_items_created_while_paging_neither_shift_nor_repeat_a_page(
    client: httpx.AsyncClient, limit: int, before: int, inserts: list[int]
) -> None:
    """What existed at the start is seen exactly once, in order, whatever is created meanwhile."""
    await asyncio.gather(*(create(client, "before") for _ in range(before)))
    existing = [item async for page in pages(client, limit=100) for item in page]
    seen: list[str] = []
    number = 0
    async for page in pages(client, limit):
        seen += page
        for _ in range(inserts[number] if number < len(inserts) else 0):
            await create(client, "meanwhile")
        number += 1
    assert seen == existing
