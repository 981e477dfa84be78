"""/health, /ready and /version of an application whose database is unreachable."""

import platform
from importlib.metadata import version

import httpx

from fastapi_k8s import NAME
from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve


async def test_health_is_200_without_a_database(client: httpx.AsyncClient) -> None:
    response = await client.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_ready_is_503_without_a_database_and_does_not_leak_the_url(
    client: httpx.AsyncClient,
) -> None:
    response = await client.get("/ready")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json() == {
        "status": "unready",
        "checks": {"database": "unreachable", "cache": "disabled"},
    }


async def test_version_is_the_installed_version_by_default(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json() == {
        "name": NAME,
        "version": version(NAME),
        "commit": "unknown",
        "python": platform.python_version(),
    }


async def test_version_is_the_version_and_commit_of_the_image(
    make_settings: MakeSettings, serve: Serve
) -> None:
    settings = make_settings(app_version="1.2.3", git_sha="4f2a9c1")
    async with serve(create_app(settings)) as client:
        response = await client.get("/version")
    release = response.json()
    assert (release["version"], release["commit"]) == ("1.2.3", "4f2a9c1")
