"""The items API on real servers."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
import pytest

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve


@pytest.fixture
async def item(client: httpx.AsyncClient) -> httpx.Response:
    """The answer to a creation."""
    return await client.post("/items", json={"name": "Lamp", "description": "For the desk."})


async def test_create_answers_201_with_location_tag_and_item(item: httpx.Response) -> None:
    body = item.json()
    assert item.status_code == 201
    assert item.headers["location"] == f"/items/{body['id']}"
    assert item.headers["etag"].startswith('"')
    assert UUID(body["id"]).version == 7
    assert (body["name"], body["description"]) == ("Lamp", "For the desk.")
    created = datetime.fromisoformat(body["created_at"])
    assert created.tzinfo == UTC
    assert body["updated_at"] == body["created_at"]


async def test_read_gives_what_create_answered(
    client: httpx.AsyncClient, item: httpx.Response
) -> None:
    for _ in range(2):  # from PostgreSQL, then from Redis
        answer = await client.get(item.headers["location"])
        assert answer.status_code == 200
        assert answer.content == item.content
        assert answer.headers["etag"] == item.headers["etag"]


async def test_read_is_304_for_the_version_at_hand(
    client: httpx.AsyncClient, item: httpx.Response
) -> None:
    tag = {"If-None-Match": item.headers["etag"]}
    answer = await client.get(item.headers["location"], headers=tag)
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == item.headers["etag"]


async def test_replace_answers_the_new_version_and_changes_the_tag(
    client: httpx.AsyncClient, item: httpx.Response
) -> None:
    match = {"If-Match": item.headers["etag"]}
    answer = await client.put(item.headers["location"], json={"name": "Sofa"}, headers=match)
    body = answer.json()
    assert answer.status_code == 200
    assert answer.headers["etag"] != item.headers["etag"]
    assert (body["name"], body["description"]) == ("Sofa", None)
    assert body["created_at"] == item.json()["created_at"]
    assert body["updated_at"] > body["created_at"]
    assert (await client.get(item.headers["location"])).content == answer.content


async def test_replace_to_the_old_content_still_changes_the_tag(
    client: httpx.AsyncClient, item: httpx.Response
) -> None:
    content = {"name": "Lamp", "description": "For the desk."}
    match = {"If-Match": item.headers["etag"]}
    answer = await client.put(item.headers["location"], json=content, headers=match)
    assert answer.headers["etag"] != item.headers["etag"]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_stale_write_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, item: httpx.Response, method: str
) -> None:
    stale = {"If-Match": '"000000000000000000000000"'}
    answer = await client.request(
        method, item.headers["location"], headers=stale, json={"name": "Sofa"}
    )
    assert answer.status_code == 412
    assert (await client.get(item.headers["location"])).content == item.content


async def test_of_many_concurrent_updates_of_one_version_one_wins(
    client: httpx.AsyncClient, item: httpx.Response
) -> None:
    match = {"If-Match": item.headers["etag"]}
    answers = await asyncio.gather(
        *(
            client.put(item.headers["location"], json={"name": f"{n}"}, headers=match)
            for n in range(20)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 19


async def test_delete_is_204_then_404(client: httpx.AsyncClient, item: httpx.Response) -> None:
    await client.get(item.headers["location"])  # into the cache
    answer = await client.delete(item.headers["location"])
    assert (answer.status_code, answer.content) == (204, b"")
    for method in ("GET", "DELETE"):
        again = await client.request(method, item.headers["location"])
        assert again.status_code == 404


async def test_replace_of_a_missing_item_is_404(client: httpx.AsyncClient) -> None:
    answer = await client.put(f"/items/{uuid4()}", json={"name": "x"}, headers={"If-Match": "*"})
    assert answer.status_code == 404


@pytest.mark.parametrize("text", ["é" * 200, "\U0001f4a1" * 200, "'; DROP TABLE items; --", "\\u"])
async def test_any_text_of_200_characters_comes_back_as_it_went_in(
    client: httpx.AsyncClient, text: str
) -> None:
    created = await client.post("/items", json={"name": text})
    assert created.status_code == 201
    assert (await client.get(created.headers["location"])).json()["name"] == text


async def test_without_redis_url_reads_come_from_postgresql(
    make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings(redis_url=""))) as client:
        created = await client.post("/items", json={"name": "Lamp"})
        assert (await client.get(created.headers["location"])).content == created.content
        assert (await client.get("/ready")).json()["checks"]["cache"] == "disabled"


async def test_location_has_the_prefix_that_a_proxy_strips(
    make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings()), root_path="/shop") as client:
        created = await client.post("/items", json={"name": "Lamp"})
        assert created.headers["location"] == f"/shop/items/{created.json()['id']}"
