"""/docs works without a CDN. In production, /docs and /openapi.json do not exist by default."""

import re
from importlib.metadata import version
from importlib.resources import files

import httpx
import pytest

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve

from .test_errors import read_problem
from .test_head import stable_headers

VERSION = version("fastapi-swagger")
FILES_PATH = f"/docs/{VERSION}"
CONTENT_TYPES = {
    "swagger-ui-bundle.js": "(text|application)/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
PATHS = ["/docs", "/docs/oauth2-redirect", "/openapi.json", f"{FILES_PATH}/swagger-ui.css"]


@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_the_page_loads_the_files_of_the_package(
    make_settings: MakeSettings, serve: Serve, root_path: str
) -> None:
    loaded_files = {}
    async with serve(create_app(make_settings()), root_path=root_path) as client:
        page = await client.get("/docs")
        for url in re.findall(r'(?:src|href)="([^"]*)"', page.text):
            assert url.startswith(f"{root_path}{FILES_PATH}/")
            # The proxy that the prefix is for removes it.
            response = await client.get(url.removeprefix(root_path))
            assert response.status_code == 200
            loaded_files[url.rpartition("/")[2]] = response
    assert loaded_files.keys() == CONTENT_TYPES.keys()
    folder = files("fastapi_swagger") / "resources"
    for name, response in loaded_files.items():
        assert response.content == (folder / name).read_bytes()
        assert re.fullmatch(CONTENT_TYPES[name], response.headers["content-type"])


@pytest.mark.parametrize("name", CONTENT_TYPES)
async def test_browsers_store_a_file_for_as_long_as_its_version_is_used(
    client: httpx.AsyncClient, name: str
) -> None:
    response = await client.get(f"{FILES_PATH}/{name}")
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["x-content-type-options"] == "nosniff"
    head = await client.head(f"{FILES_PATH}/{name}")
    assert stable_headers(head) == stable_headers(response)


@pytest.mark.parametrize(
    "path",
    [FILES_PATH, f"{FILES_PATH}/", f"{FILES_PATH}/__init__.py", "/docs/0.0.0/swagger-ui.css"],
)
async def test_no_other_files_are_served(client: httpx.AsyncClient, path: str) -> None:
    read_problem(await client.get(path), 404)


@pytest.mark.parametrize(
    ("environment", "api_docs", "status"),
    [
        ("development", None, 200),
        ("development", "false", 404),
        ("production", None, 404),
        ("production", "true", 200),
    ],
)
async def test_the_documentation_exists_in_development_or_if_the_setting_is_true(
    make_settings: MakeSettings,
    serve: Serve,
    environment: str,
    api_docs: str | None,
    status: int,
) -> None:
    options = {} if api_docs is None else {"api_docs": api_docs}
    url = "postgresql://user:a-good-password@db/name"
    app = create_app(make_settings(environment=environment, database_url=url, **options))
    async with serve(app) as client:
        for path in PATHS:
            response = await client.get(path)
            assert response.status_code == status, path
            if status == 404:
                read_problem(response, 404)
