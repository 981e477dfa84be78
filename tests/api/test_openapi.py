"""The OpenAPI document."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.openapi.models import OpenAPI

from fastapi_k8s import NAME
from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings
from tools import openapi
from tools.checkout import PROJECT

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
    """Every `$ref` in a part of the document."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


async def test_the_document_is_served_and_so_is_its_page(
    client: httpx.AsyncClient, spec: Spec
) -> None:
    assert (await client.get("/openapi.json")).json() == spec
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "'/openapi.json'" in page.text


def test_the_document_is_valid_and_its_references_lead_somewhere(spec: Spec) -> None:
    OpenAPI.model_validate(spec)
    all_references = set(references(spec))
    assert all_references
    for reference in all_references:
        assert reference.startswith("#/")
        part = spec
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


def test_the_document_has_the_name_and_the_release_of_the_service(
    make_settings: MakeSettings,
) -> None:
    info = create_app(make_settings(app_version="1.2.3")).openapi()["info"]
    assert (info["title"], info["version"]) == (NAME, "1.2.3")


def test_each_operation_has_a_summary_and_a_description(spec: Spec) -> None:  # template
    assert {"GET /health", "GET /ready", "GET /version", "GET /metrics"} <= set(operations(spec))
    for operation in operations(spec).values():
        assert operation["summary"]
        assert operation["description"]


def test_operation_ids_are_the_names_of_the_functions(spec: Spec) -> None:
    """Generated clients name their methods after them."""
    ids = [operation["operationId"] for operation in operations(spec).values()]
    assert {"get_health", "get_ready", "get_version", "get_metrics"} <= set(ids)
    assert len(set(ids)) == len(ids)


def test_every_error_response_refers_to_the_one_component_of_problem_details(spec: Spec) -> None:
    members = {"type", "title", "status", "detail", "instance", "request_id", "errors"}
    assert set(spec["components"]["schemas"]["Problem"]["properties"]) == members
    for name, operation in operations(spec).items():
        assert "default" in operation["responses"]
        for status, response in operation["responses"].items():
            if (name, status) == ("GET /ready", "503"):
                continue  # the readiness report
            if status == "default" or int(status) >= 400:
                reference = {"$ref": "#/components/schemas/Problem"}
                assert response["content"] == {"application/problem+json": {"schema": reference}}


def test_every_response_documents_the_request_id(spec: Spec) -> None:
    for operation in operations(spec).values():
        for response in operation["responses"].values():
            assert "X-Request-ID" in response["headers"]


def test_a_route_that_is_added_later_is_documented_the_same_way(
    make_settings: MakeSettings,
) -> None:
    app = create_app(make_settings())
    app.openapi()

    @app.get("/later")
    async def later() -> int:
        raise NotImplementedError

    document = app.openapi()
    responses = document["paths"]["/later"]["get"]["responses"]
    assert "X-Request-ID" in responses["200"]["headers"]
    assert set(references(document)) >= set(references(responses))
    assert "Problem" in document["components"]["schemas"]


def test_errors_of_fastapi_itself_are_not_documented(spec: Spec) -> None:
    assert "HTTPValidationError" not in str(spec)


def test_headers_have_one_spelling(spec: Spec) -> None:  # template
    parameters = [
        parameter["name"]
        for operation in operations(spec).values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "header"
    ]
    assert set(parameters) <= {"If-Match", "If-None-Match", "Idempotency-Key"}


def test_the_committed_document_is_the_current_one() -> None:  # template
    """If it fails: `make openapi`, and look at the difference. `make lint` compares too."""
    assert (PROJECT / openapi.DOCUMENT).read_text() == openapi.render()
