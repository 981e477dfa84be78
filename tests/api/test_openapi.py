"""The description of the API."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.openapi.models import OpenAPI

from fastapi_k8s import NAME
from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings

Spec = dict[str, Any]


@pytest.fixture
def spec(make_settings: MakeSettings) -> Spec:
    return create_app(make_settings()).openapi()


def operations(spec: Spec) -> dict[str, Spec]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in spec["paths"].items()
        for method, operation in methods.items()
    }


def references(part: Any) -> Iterator[str]:
    """Every `$ref` in it."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


async def test_it_is_served_and_so_is_its_page(client: httpx.AsyncClient, spec: Spec) -> None:
    assert (await client.get("/openapi.json")).json() == spec
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "'/openapi.json'" in page.text


def test_it_is_valid_and_refers_to_nothing_that_is_not_there(spec: Spec) -> None:
    OpenAPI.model_validate(spec)
    found = set(references(spec))
    assert found
    for reference in found:
        assert reference.startswith("#/")
        place = spec
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


def test_it_names_the_service_and_its_release(make_settings: MakeSettings) -> None:
    info = create_app(make_settings(app_version="1.2.3")).openapi()["info"]
    assert (info["title"], info["version"]) == (NAME, "1.2.3")


def test_each_operation_says_what_it_does(spec: Spec) -> None:
    found = operations(spec)
    assert {"GET /health", "GET /ready", "GET /version", "GET /metrics"} <= set(found)
    for operation in found.values():
        assert operation["summary"]
        assert operation["description"]
    assert len({operation["operationId"] for operation in found.values()}) == len(found)


def test_each_operation_documents_its_errors_as_problem_details(spec: Spec) -> None:
    for operation in operations(spec).values():
        problem = operation["responses"]["default"]["content"]["application/problem+json"]["schema"]
        members = {"type", "title", "status", "detail", "instance", "request_id", "errors"}
        assert set(problem["properties"]) == members


def test_fastapis_own_errors_are_not_documented(spec: Spec) -> None:
    assert "HTTPValidationError" not in str(spec)
    for operation in operations(spec).values():
        assert "422" not in operation["responses"]
