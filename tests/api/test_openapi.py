"""The OpenAPI document is valid and complete."""

from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Header
from fastapi.openapi.models import OpenAPI

from fastapi_k8s import NAME
from fastapi_k8s.main import create_app
from fastapi_k8s.openapi import problem_responses
from tests.conftest import MakeSettings

Spec = dict[str, Any]


@pytest.fixture
def spec(make_settings: MakeSettings) -> Spec:
    return create_app(make_settings()).openapi()


def get_operations(spec: Spec) -> dict[str, Spec]:
    """The operations of the document, by names such as `GET /health`."""
    operations = {}
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            operations[f"{method.upper()} {path}"] = operation
    return operations


def find_references(part: Any) -> Iterator[str]:
    """Every `$ref` in a part of the document."""
    children: list[Any] = []
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        children = list(part.values())
    elif isinstance(part, list):
        children = part
    for child in children:
        yield from find_references(child)


async def test_the_document_and_its_page_are_served(client: httpx.AsyncClient, spec: Spec) -> None:
    assert (await client.get("/openapi.json")).json() == spec
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "'/openapi.json'" in page.text


def test_the_document_is_valid_and_every_reference_has_a_target(spec: Spec) -> None:
    OpenAPI.model_validate(spec)
    references = set(find_references(spec))
    assert references
    for reference in references:
        assert reference.startswith("#/")
        part = spec
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


def test_the_document_has_the_name_and_the_version_of_the_application(
    make_settings: MakeSettings,
) -> None:
    info = create_app(make_settings(app_version="1.2.3")).openapi()["info"]
    assert (info["title"], info["version"]) == (NAME, "1.2.3")


def test_each_operation_has_a_summary_and_a_description(spec: Spec) -> None:  # template
    assert {"GET /health", "GET /ready", "GET /version", "GET /metrics"} <= set(
        get_operations(spec)
    )
    for operation in get_operations(spec).values():
        assert operation["summary"]
        assert operation["description"]


def test_operation_ids_are_the_names_of_the_functions(spec: Spec) -> None:
    """Generated clients name their methods after them."""
    ids = [operation["operationId"] for operation in get_operations(spec).values()]
    assert {"get_health", "get_ready", "get_version", "get_metrics"} <= set(ids)
    assert len(set(ids)) == len(ids)


def test_every_error_response_references_the_component_problem(spec: Spec) -> None:
    members = {"type", "title", "status", "detail", "instance", "request_id", "errors", "data"}
    assert set(spec["components"]["schemas"]["Problem"]["properties"]) == members
    for name, operation in get_operations(spec).items():
        assert "default" in operation["responses"]
        for status, response in operation["responses"].items():
            if (name, status) == ("GET /ready", "503"):
                continue  # the readiness report
            if status == "default" or int(status) >= 400:
                reference = {"$ref": "#/components/schemas/Problem"}
                assert response["content"] == {"application/problem+json": {"schema": reference}}


def test_an_operation_can_document_its_error_statuses(make_settings: MakeSettings) -> None:
    app = create_app(make_settings())

    @app.get("/things", responses=problem_responses(404, 409, 413, 503))
    async def list_things() -> int:
        raise NotImplementedError

    responses = app.openapi()["paths"]["/things"]["get"]["responses"]
    assert set(responses) == {"200", "404", "409", "413", "503", "default"}
    assert responses["413"]["description"] == "Content Too Large"
    for status in ("404", "409", "413", "503"):
        assert list(responses[status]["content"]) == ["application/problem+json"]
        has_retry_after = "Retry-After" in responses[status]["headers"]
        assert has_retry_after == (status in {"409", "503"})


def test_every_response_documents_the_request_id(spec: Spec) -> None:
    for operation in get_operations(spec).values():
        for response in operation["responses"].values():
            assert "X-Request-ID" in response["headers"]


def test_every_documented_response_header_is_required(spec: Spec) -> None:
    """Otherwise `make fuzz` would not notice that a response does not have it."""
    assert spec["components"]["headers"]["X-Request-ID"]["required"] is True
    for operation in get_operations(spec).values():
        for response in operation["responses"].values():
            for header in response["headers"].values():
                assert "$ref" in header or header["required"] is True


def test_an_optional_parameter_has_the_schema_of_its_value(make_settings: MakeSettings) -> None:
    """FastAPI adds `null`, which no client can send in a header or a query."""
    app = create_app(make_settings())

    @app.get("/things")
    async def list_things(
        limit: int | None = None,
        size: int | str | None = None,
        x_tag: Annotated[list[str] | None, Header()] = None,
    ) -> int:
        raise NotImplementedError

    parameters = app.openapi()["paths"]["/things"]["get"]["parameters"]
    schemas = {parameter["name"]: parameter["schema"] for parameter in parameters}
    assert schemas == {
        "limit": {"type": "integer", "title": "Limit"},
        "size": {"anyOf": [{"type": "integer"}, {"type": "string"}], "title": "Size"},
        "x-tag": {"type": "array", "items": {"type": "string"}, "title": "X-Tag"},
    }
    assert not any(parameter["required"] for parameter in parameters)


def test_a_parameter_without_a_schema_of_its_own_is_kept(make_settings: MakeSettings) -> None:
    reference = {"$ref": "#/components/parameters/Tenant"}
    app = create_app(make_settings())

    @app.get("/things", openapi_extra={"parameters": [reference]})
    async def list_things() -> int:
        raise NotImplementedError

    assert app.openapi()["paths"]["/things"]["get"]["parameters"] == [reference]


def test_a_route_that_is_added_later_is_documented_in_the_same_way(
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
    assert set(find_references(document)) >= set(find_references(responses))
    assert "Problem" in document["components"]["schemas"]


def test_the_error_model_of_fastapi_is_not_documented(spec: Spec) -> None:
    assert "HTTPValidationError" not in str(spec)


def test_headers_have_one_spelling(spec: Spec) -> None:  # template
    headers = set()
    for operation in get_operations(spec).values():
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "header":
                headers.add(parameter["name"])
    assert headers <= {"If-Match", "If-None-Match", "Idempotency-Key"}
