"""/health, /ready and /version without a database."""

import httpx


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
