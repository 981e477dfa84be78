"""The list of items: newest first, in pages that do not shift while items are created."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


async def create_item(client: httpx.AsyncClient, name: str) -> str:
    """Create an item and return its id."""
    response = await client.post("/items", json={"name": name})
    assert response.status_code == 201
    return str(response.json()["id"])


async def read_pages(client: httpx.AsyncClient, limit: int) -> AsyncIterator[list[str]]:
    """The ids of the items on each page."""
    parameters: dict[str, int | str] = {"limit": limit}
    while True:
        response = await client.get("/items", params=parameters)
        assert response.status_code == 200, response.text
        page = response.json()
        yield [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return
        parameters["cursor"] = page["next_cursor"]


async def read_all_ids(client: httpx.AsyncClient) -> list[str]:
    ids: list[str] = []
    async for page in read_pages(client, limit=100):
        ids.extend(page)
    return ids


async def test_an_empty_list_has_no_next_page(client: httpx.AsyncClient) -> None:
    assert (await client.get("/items")).json() == {"items": [], "next_cursor": None}


async def test_the_newest_item_is_first_and_a_full_last_page_has_no_next_page(
    client: httpx.AsyncClient,
) -> None:
    first, second, third, fourth = [await create_item(client, f"{n}") for n in range(4)]
    pages = [page async for page in read_pages(client, limit=2)]
    assert pages == [[fourth, third], [second, first]]


async def test_a_page_has_twenty_items_by_default(client: httpx.AsyncClient) -> None:
    await asyncio.gather(*[create_item(client, f"{number}") for number in range(21)])
    assert len((await client.get("/items")).json()["items"]) == 20


@pytest.mark.parametrize("limit", [1, 100])
async def test_limits_from_1_to_100_are_accepted(client: httpx.AsyncClient, limit: int) -> None:
    assert (await client.get("/items", params={"limit": limit})).status_code == 200


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    limit=st.integers(1, 5),
    items_before=st.integers(0, 12),
    items_after_each_page=st.lists(st.integers(0, 3), max_size=8),
)
async def test_items_that_are_created_between_pages_neither_shift_nor_repeat_others(
    client: httpx.AsyncClient, limit: int, items_before: int, items_after_each_page: list[int]
) -> None:
    """The pages list each item that existed at the start exactly once, in order."""
    await asyncio.gather(*[create_item(client, "before") for _ in range(items_before)])
    existing = await read_all_ids(client)
    items_to_create = iter(items_after_each_page)
    listed: list[str] = []
    async for page in read_pages(client, limit):
        listed.extend(page)
        for _ in range(next(items_to_create, 0)):
            await create_item(client, "between pages")
    assert listed == existing
