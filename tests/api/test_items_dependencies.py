"""`dependency_overrides` replaces the store and the database of the items."""

from typing import cast

import pytest

from fastapi_k8s.cache import Cache, Load
from fastapi_k8s.connection_pool import Connection, ConnectionPool
from fastapi_k8s.database import Database
from fastapi_k8s.dependencies import get_database
from fastapi_k8s.errors import ProblemError
from fastapi_k8s.items.routes import get_item_store
from fastapi_k8s.items.store import ItemStore
from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve

ITEM = "/items/019a0000-0000-7000-8000-000000000000"


class DatabaseInMaintenance(Database):
    """A database without a pool. It refuses every connection with its own message."""

    def __init__(self) -> None:
        super().__init__(cast("ConnectionPool", None))

    async def acquire(self) -> Connection:
        raise ProblemError(503, "Maintenance until noon.")


class CacheWithEveryItem(Cache):
    """A cache that has a value for each key, so that the database is not used."""

    async def get_or_load(self, key: str, representation: bytes, load: Load) -> bytes:
        return b'{"name":"cached"}'


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ITEM), ("PUT", ITEM), ("DELETE", ITEM), ("GET", "/items")]
)
async def test_every_operation_on_items_uses_an_overriding_store(
    make_settings: MakeSettings, serve: Serve, method: str, path: str
) -> None:
    def get_store_in_maintenance() -> ItemStore:
        return ItemStore(DatabaseInMaintenance(), Cache(None, ttl_seconds=1))

    app = create_app(make_settings())
    app.dependency_overrides[get_item_store] = get_store_in_maintenance
    async with serve(app) as client:
        json = {"name": "x"} if method == "PUT" else None
        response = await client.request(method, path, json=json, headers={"If-Match": "*"})
    assert response.status_code == 503
    assert response.json()["detail"] == "Maintenance until noon."


async def test_a_creation_uses_an_overriding_database(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings())
    app.dependency_overrides[get_database] = DatabaseInMaintenance
    async with serve(app) as client:
        response = await client.post("/items", json={"name": "x"})
    assert response.status_code == 503
    assert response.json()["detail"] == "Maintenance until noon."


async def test_a_read_uses_the_cache_of_an_overriding_store(
    make_settings: MakeSettings, serve: Serve
) -> None:
    def get_store_with_cached_items() -> ItemStore:
        return ItemStore(DatabaseInMaintenance(), CacheWithEveryItem(None, ttl_seconds=1))

    app = create_app(make_settings())
    app.dependency_overrides[get_item_store] = get_store_with_cached_items
    async with serve(app) as client:
        response = await client.get(ITEM)
    assert (response.status_code, response.json()) == (200, {"name": "cached"})
