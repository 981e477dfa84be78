"""What other hosts are told: browsers by CORS, and clients of a proxy by ROOT_PATH."""

import httpx
import pytest

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve

HERE, THERE = "https://here.example", "https://there.example"
PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "if-match"}


def cors(answer: httpx.Response) -> dict[str, str]:
    """The headers that open the answer to other origins."""
    return {n: v for n, v in answer.headers.items() if n.startswith("access-control-")}


async def test_cors_is_off_by_default(client: httpx.AsyncClient) -> None:
    assert cors(await client.get("/version", headers={"Origin": HERE})) == {}


@pytest.mark.parametrize("given", [HERE, f"https://other.example, {HERE}"])
async def test_cors_answers_the_given_origins(
    make_settings: MakeSettings, serve: Serve, given: str
) -> None:
    async with serve(create_app(make_settings(cors_origins=given))) as client:
        answer = await client.get("/version", headers={"Origin": HERE})
        assert answer.headers["access-control-allow-origin"] == HERE
        exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
        assert {"etag", "location", "x-request-id"} <= set(exposed)
        refused = await client.get("/version", headers={"Origin": THERE})
        assert "access-control-allow-origin" not in refused.headers
        # A browser shows no error to the page without them.
        missing = await client.get("/nothing", headers={"Origin": HERE})
        assert missing.headers["access-control-allow-origin"] == HERE


async def test_cors_answers_preflights(make_settings: MakeSettings, serve: Serve) -> None:
    async with serve(create_app(make_settings(cors_origins=HERE))) as client:
        answer = await client.options("/version", headers={"Origin": HERE, **PREFLIGHT})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == HERE
        assert "PUT" in answer.headers["access-control-allow-methods"]
        assert "if-match" in answer.headers["access-control-allow-headers"].lower()
        refused = await client.options("/version", headers={"Origin": THERE, **PREFLIGHT})
        assert refused.status_code == 400


async def test_cors_lets_browsers_read_errors_too(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings(cors_origins=HERE))

    @app.get("/failing")
    async def failing() -> None:
        raise RuntimeError

    async with serve(app) as client:
        for path, status in {"/failing": 500, "/nothing": 404}.items():
            answer = await client.get(path, headers={"Origin": HERE})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == HERE


async def test_a_root_path_is_told_and_not_routed(
    make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings()), root_path="/shop") as client:
        described = await client.get("/openapi.json")
        assert described.json()["servers"] == [{"url": "/shop"}]
        assert "'/shop/openapi.json'" in (await client.get("/docs")).text
        assert (await client.get("/version")).status_code == 200


async def test_without_a_root_path_no_server_is_told(client: httpx.AsyncClient) -> None:
    assert "servers" not in (await client.get("/openapi.json")).json()
