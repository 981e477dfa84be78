"""/health, /ready and /version without a database."""

import platform
from importlib.metadata import version

import httpx

from fastapi_k8s import NAME
from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve


async def test_health_is_ok_and_touches_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_is_503_and_tells_nothing_secret(client: httpx.AsyncClient) -> None:
    answer = await client.get("/ready")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "unready",
        "checks": {"database": "unreachable", "cache": "disabled"},
    }


async def test_version_tells_the_installed_release(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json() == {
        "name": NAME,
        "version": version(NAME),
        "commit": "unknown",
        "python": platform.python_version(),
    }


async def test_version_tells_what_the_image_was_built_from(
    make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings(app_version="1.2.3", git_sha="4f2a9c1"))) as client:
        answer = (await client.get("/version")).json()
    assert (answer["version"], answer["commit"]) == ("1.2.3", "4f2a9c1")
