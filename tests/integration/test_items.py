"""The items API on real servers: create, read, replace and delete."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
import pytest

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve
from tests.integration.conftest import execute_sql

CONTENT = {"name": "Lamp", "description": "For the desk."}
OTHER_ETAG = '"000000000000000000000000"'


@pytest.fixture
async def created(client: httpx.AsyncClient) -> httpx.Response:
    """The response to the creation of an item."""
    return await client.post("/items", json=CONTENT)


async def test_create_returns_201_with_location_etag_and_item(created: httpx.Response) -> None:
    item = created.json()
    assert created.status_code == 201
    assert created.headers["location"] == f"/items/{item['id']}"
    assert created.headers["etag"].startswith('"')
    assert UUID(item["id"]).version == 7
    assert (item["name"], item["description"]) == ("Lamp", "For the desk.")
    assert datetime.fromisoformat(item["created_at"]).tzinfo == UTC
    assert item["updated_at"] == item["created_at"]


async def test_read_returns_what_create_returned(
    client: httpx.AsyncClient, created: httpx.Response
) -> None:
    for _ in range(2):  # from PostgreSQL, then from Redis
        response = await client.get(created.headers["location"])
        assert response.status_code == 200
        assert response.content == created.content
        assert response.headers["etag"] == created.headers["etag"]


async def test_read_is_304_if_the_client_has_the_current_version(
    client: httpx.AsyncClient, created: httpx.Response
) -> None:
    headers = {"If-None-Match": created.headers["etag"]}
    response = await client.get(created.headers["location"], headers=headers)
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == created.headers["etag"]


async def test_replace_returns_the_new_version_with_a_new_etag(
    client: httpx.AsyncClient, created: httpx.Response
) -> None:
    location = created.headers["location"]
    headers = {"If-Match": created.headers["etag"]}
    response = await client.put(location, json={"name": "Sofa"}, headers=headers)
    item = response.json()
    assert response.status_code == 200
    assert response.headers["etag"] != created.headers["etag"]
    assert (item["name"], item["description"]) == ("Sofa", None)
    assert item["created_at"] == created.json()["created_at"]
    assert item["updated_at"] > item["created_at"]
    assert (await client.get(location)).content == response.content


async def test_a_replacement_with_equal_content_has_a_new_etag(
    client: httpx.AsyncClient, created: httpx.Response
) -> None:
    headers = {"If-Match": created.headers["etag"]}
    response = await client.put(created.headers["location"], json=CONTENT, headers=headers)
    assert response.status_code == 200
    assert response.headers["etag"] != created.headers["etag"]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_write_with_an_outdated_etag_is_412_and_changes_nothing(
    client: httpx.AsyncClient, created: httpx.Response, method: str
) -> None:
    location = created.headers["location"]
    headers = {"If-Match": OTHER_ETAG}
    response = await client.request(method, location, headers=headers, json={"name": "Sofa"})
    assert response.status_code == 412
    assert (await client.get(location)).content == created.content


async def test_a_read_evaluates_several_lines_of_each_precondition(
    client: httpx.AsyncClient, created: httpx.Response
) -> None:
    location, etag = created.headers["location"], created.headers["etag"]
    several_lines = [("If-None-Match", OTHER_ETAG), ("If-None-Match", etag)]
    for method in ("GET", "HEAD"):
        response = await client.request(method, location, headers=several_lines)
        assert (response.status_code, response.headers["etag"]) == (304, etag)
    response = await client.get(location, headers=[("If-Match", OTHER_ETAG), ("If-Match", etag)])
    assert response.status_code == 200
    assert (await client.get(location, headers={"If-Match": OTHER_ETAG})).status_code == 412


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_write_evaluates_several_lines_of_if_match(
    client: httpx.AsyncClient, created: httpx.Response, method: str
) -> None:
    several_lines = [("If-Match", created.headers["etag"]), ("If-Match", OTHER_ETAG)]
    response = await client.request(
        method, created.headers["location"], headers=several_lines, json={"name": "Sofa"}
    )
    assert response.is_success


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_write_with_if_none_match_is_412_if_that_version_is_the_current_one(
    client: httpx.AsyncClient, created: httpx.Response, method: str
) -> None:
    location, etag = created.headers["location"], created.headers["etag"]
    if_match = [("If-Match", "*")]
    for lines in (["*"], [f"W/{etag}"], [OTHER_ETAG, etag]):
        headers = if_match + [("If-None-Match", line) for line in lines]
        response = await client.request(method, location, headers=headers, json={"name": "Sofa"})
        assert response.status_code == 412
        assert (await client.get(location)).content == created.content
    headers = [*if_match, ("If-None-Match", OTHER_ETAG)]
    response = await client.request(method, location, headers=headers, json={"name": "Sofa"})
    assert response.is_success


async def test_delete_with_if_none_match_alone_is_412(
    client: httpx.AsyncClient, created: httpx.Response
) -> None:
    location = created.headers["location"]
    response = await client.delete(location, headers={"If-None-Match": "*"})
    assert response.status_code == 412
    assert (await client.get(location)).content == created.content


async def test_one_of_many_concurrent_replacements_of_a_version_succeeds(
    client: httpx.AsyncClient, created: httpx.Response
) -> None:
    headers = {"If-Match": created.headers["etag"]}

    async def replace(name: str) -> int:
        content = {"name": name}
        response = await client.put(created.headers["location"], json=content, headers=headers)
        return response.status_code

    statuses = await asyncio.gather(*[replace(f"{number}") for number in range(20)])
    assert sorted(statuses) == [200] + [412] * 19


async def test_delete_is_204_and_then_404(
    client: httpx.AsyncClient, created: httpx.Response
) -> None:
    location = created.headers["location"]
    await client.get(location)  # stores the item in the cache
    response = await client.delete(location)
    assert (response.status_code, response.content) == (204, b"")
    for method in ("GET", "DELETE"):
        assert (await client.request(method, location)).status_code == 404


async def test_replace_is_404_for_an_item_that_does_not_exist(client: httpx.AsyncClient) -> None:
    headers = {"If-Match": "*"}
    response = await client.put(f"/items/{uuid4()}", json={"name": "x"}, headers=headers)
    assert response.status_code == 404


@pytest.mark.parametrize("name", ["é" * 200, "\U0001f4a1" * 200, "'; DROP TABLE items; --", "\\u"])
async def test_any_text_is_returned_as_it_was_sent(client: httpx.AsyncClient, name: str) -> None:
    created = await client.post("/items", json={"name": name})
    assert created.status_code == 201
    assert (await client.get(created.headers["location"])).json()["name"] == name


async def test_without_redis_url_reads_come_from_postgresql(
    make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings(redis_url=""))) as client:
        created = await client.post("/items", json={"name": "Lamp"})
        assert (await client.get(created.headers["location"])).content == created.content
        assert (await client.get("/ready")).json()["checks"]["cache"] == "disabled"


async def test_location_begins_with_the_root_path(
    make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings()), root_path="/shop") as client:
        created = await client.post("/items", json={"name": "Lamp"})
        assert created.headers["location"] == f"/shop/items/{created.json()['id']}"


@pytest.mark.parametrize(
    "request_line",
    ["POST /items", "GET /items", "GET /items/{id}", "PUT /items/{id}", "DELETE /items/{id}"],
)
async def test_no_request_fails_after_a_migration_has_changed_a_type(
    make_settings: MakeSettings, serve: Serve, database_url: str, request_line: str
) -> None:
    """The prepared statements of the only connection are outdated."""
    method, path = request_line.split()
    content = CONTENT if method in {"POST", "PUT"} else None
    settings = make_settings(database_pool_size=1, redis_url="")
    async with serve(create_app(settings)) as client:

        async def send(item: dict[str, str], headers: dict[str, str]) -> int:
            response = await client.request(
                method, path.format_map(item), json=content, headers=headers
            )
            return response.status_code

        items = [(await client.post("/items", json=CONTENT)).json() for _ in range(3)]
        status = await send(items[0], {"If-Match": "*"})
        assert status < 300
        await execute_sql(database_url, "ALTER TABLE items ALTER COLUMN name TYPE varchar(200)")
        assert await send(items[1], {"If-Match": "*"}) == status
        await execute_sql(database_url, "ALTER TABLE items ALTER COLUMN name TYPE varchar(201)")
        key = uuid4().hex
        assert await send(items[2], {"If-Match": "*", "Idempotency-Key": key}) == status
