"""CORS for browsers, and ROOT_PATH for clients of a reverse proxy."""

import httpx
import pytest

from fastapi_k8s.main import create_app
from tests.conftest import LogLines, MakeSettings, Serve
from tools.dev.servers import free_port

from .test_errors import read_problem

ALLOWED_ORIGIN = "https://allowed.example"
OTHER_ORIGIN = "https://other.example"
PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "if-match"}
ALLOW_ORIGIN = "access-control-allow-origin"


async def test_cors_is_disabled_by_default(client: httpx.AsyncClient) -> None:
    response = await client.get("/version", headers={"Origin": ALLOWED_ORIGIN})
    assert not [name for name in response.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "cors_origins", [ALLOWED_ORIGIN, f"https://another.example, {ALLOWED_ORIGIN}"]
)
async def test_only_the_configured_origins_are_allowed(
    make_settings: MakeSettings, serve: Serve, cors_origins: str
) -> None:
    async with serve(create_app(make_settings(cors_origins=cors_origins))) as client:
        response = await client.get("/version", headers={"Origin": ALLOWED_ORIGIN})
        assert response.headers[ALLOW_ORIGIN] == ALLOWED_ORIGIN
        exposed = response.headers["access-control-expose-headers"].lower().split(", ")
        assert {"etag", "location", "retry-after", "x-request-id"} <= set(exposed)
        refused = await client.get("/version", headers={"Origin": OTHER_ORIGIN})
        assert ALLOW_ORIGIN not in refused.headers


async def test_a_star_allows_every_origin(make_settings: MakeSettings, serve: Serve) -> None:
    async with serve(create_app(make_settings(cors_origins="*"))) as client:
        response = await client.get("/version", headers={"Origin": OTHER_ORIGIN})
        assert response.headers[ALLOW_ORIGIN] == "*"


async def test_preflight_requests_of_the_configured_origins_are_allowed(
    make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings(cors_origins=ALLOWED_ORIGIN))) as client:
        headers = {"Origin": ALLOWED_ORIGIN, **PREFLIGHT}
        response = await client.options("/version", headers=headers)
        assert response.status_code == 200
        assert response.headers[ALLOW_ORIGIN] == ALLOWED_ORIGIN
        assert "PUT" in response.headers["access-control-allow-methods"]
        assert "if-match" in response.headers["access-control-allow-headers"].lower()


async def test_a_preflight_request_has_a_request_id_an_access_log_line_and_a_metric(
    make_settings: MakeSettings, serve: Serve, log_lines: LogLines
) -> None:
    async with serve(create_app(make_settings(cors_origins=ALLOWED_ORIGIN))) as client:
        headers = {"Origin": ALLOWED_ORIGIN, **PREFLIGHT}
        response = await client.options("/version", headers=headers)
        [line] = [line for line in log_lines() if line["message"] == "request"]
        assert line["request_id"] == response.headers["x-request-id"]
        assert (line["method"], line["path"], line["status"]) == ("OPTIONS", "/version", 200)
        metrics = (await client.get("/metrics")).text
        labels = 'http_request_method="OPTIONS",http_response_status_code="200",http_route=""'
        assert f"http_server_request_duration_seconds_count{{{labels}}}" in metrics


@pytest.mark.parametrize(
    ("origin", "method", "detail"),
    [
        (OTHER_ORIGIN, "PUT", "Disallowed CORS origin."),
        (ALLOWED_ORIGIN, "CONNECT", "Disallowed CORS method."),
    ],
)
async def test_a_refused_preflight_request_is_problem_details(
    make_settings: MakeSettings, serve: Serve, origin: str, method: str, detail: str
) -> None:
    async with serve(create_app(make_settings(cors_origins=ALLOWED_ORIGIN))) as client:
        headers = {"Origin": origin, "Access-Control-Request-Method": method}
        response = await client.options("/version", headers=headers)
    problem = read_problem(response, 400)
    assert problem["detail"] == detail
    assert "Origin" in response.headers["vary"]
    assert (ALLOW_ORIGIN in response.headers) == (origin == ALLOWED_ORIGIN)


async def test_error_responses_have_the_cors_headers(
    make_settings: MakeSettings, serve: Serve
) -> None:
    """Without them, a browser does not show the response to the page."""
    app = create_app(make_settings(cors_origins=ALLOWED_ORIGIN, max_body_size=100))

    @app.get("/failing")
    async def fail() -> None:
        raise RuntimeError

    @app.post("/bodies")
    async def receive_body(body: list[int]) -> list[int]:
        return body

    async with serve(app) as client:
        for path, status in (("/failing", 500), ("/unknown", 404)):
            response = await client.get(path, headers={"Origin": ALLOWED_ORIGIN})
            assert response.status_code == status
            assert response.headers[ALLOW_ORIGIN] == ALLOWED_ORIGIN
            read_problem(response, status)
        headers = {"Origin": ALLOWED_ORIGIN, "Content-Type": "application/json"}
        response = await client.post("/bodies", content=b" " * 1000, headers=headers)
        assert response.headers[ALLOW_ORIGIN] == ALLOWED_ORIGIN
        read_problem(response, 413)


async def test_a_root_path_is_in_the_documentation_and_not_in_the_routes(
    make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings()), root_path="/shop") as client:
        document = await client.get("/openapi.json")
        assert document.json()["servers"] == [{"url": "/shop"}]
        assert "'/shop/openapi.json'" in (await client.get("/docs")).text
        assert (await client.get("/version")).status_code == 200


async def test_without_a_root_path_openapi_has_no_servers(client: httpx.AsyncClient) -> None:
    assert "servers" not in (await client.get("/openapi.json")).json()


async def test_the_tests_connect_directly_if_the_shell_sets_a_proxy(
    monkeypatch: pytest.MonkeyPatch, make_settings: MakeSettings, serve: Serve
) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    async with serve(create_app(make_settings())) as client:
        assert (await client.get("/health")).status_code == httpx.codes.OK
