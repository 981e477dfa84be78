"""No request makes the items API fail: every response has one of the documented statuses."""

import json
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

fuzz = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
TEXT = st.text(st.characters(codec=None), max_size=300)  # with lone surrogates and NUL
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXT, values, max_size=3),
    max_leaves=5,
)
CONTENT = (
    st.fixed_dictionaries({"name": TEXT}, optional={"description": VALUES})
    | st.dictionaries(st.sampled_from(["name", "description", "other"]), VALUES)
    | VALUES
)
IDEMPOTENCY_KEYS = st.none() | st.text("abc \t\x80\xff", max_size=300)
PARAMETERS = st.dictionaries(
    st.sampled_from(["cursor", "limit", "other"]), st.text(max_size=60) | st.integers()
)
IDS = st.binary(min_size=1, max_size=300) | st.uuids().map(lambda uuid: uuid.bytes)


@fuzz
@given(content=CONTENT, idempotency_key=IDEMPOTENCY_KEYS)
async def test_any_content(
    client: httpx.AsyncClient, content: Any, idempotency_key: str | None
) -> None:
    headers = {b"Content-Type": b"application/json"}
    if idempotency_key is not None:
        headers[b"Idempotency-Key"] = idempotency_key.strip().encode("latin-1")
    body = json.dumps(content).encode()
    created = await client.post("/items", content=body, headers=headers)
    assert created.status_code in {201, 409, 422}, created.text
    if created.status_code == 201:
        assert created.json()["name"] == content["name"]
        if_match = {"If-Match": created.headers["etag"]}
        replaced = await client.put(created.headers["location"], json=content, headers=if_match)
        assert replaced.status_code in {200, 412}, replaced.text


@fuzz
@given(parameters=PARAMETERS)
async def test_any_query(client: httpx.AsyncClient, parameters: dict[str, Any]) -> None:
    response = await client.get("/items", params=parameters)
    assert response.status_code in {200, 422}, response.text


@fuzz
@given(item_id=IDS)
async def test_any_id(client: httpx.AsyncClient, item_id: bytes) -> None:
    response = await client.get(f"/items/{quote(item_id, safe='')}")
    assert response.status_code in {404, 422}, response.text
