"""The response to any request is 503, because there is no database, or a 4xx. It is never a 500."""

import json
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

fuzz = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# All that the syntax of JSON allows, with lone surrogates.
TEXT = st.text(st.characters(codec=None, exclude_categories=[]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda values: st.lists(values) | st.dictionaries(TEXT, values),
    max_leaves=10,
)
CONTENT = st.fixed_dictionaries({"name": TEXT | VALUES}, optional={"description": TEXT | VALUES})
BODIES = st.binary() | (CONTENT | VALUES).map(lambda value: json.dumps(value).encode())
IDS = st.binary(min_size=1) | st.uuids().map(lambda uuid: str(uuid).encode())
QUERY_PARAMETERS = st.sampled_from(["limit", "cursor", "x"]) | st.text()
# All bytes that HTTP allows in the value of a header.
HEADER_BYTES = [bytes([byte]) for byte in (*range(32, 127), *range(128, 256))]
HEADER_VALUES = st.lists(st.sampled_from(HEADER_BYTES)).map(lambda value: b"".join(value).strip())
HEADER_NAMES = st.sampled_from(
    ["Idempotency-Key", "Content-Type", "X-Request-ID", "traceparent", "If-Match", "Origin"]
)


def check_error(response: httpx.Response) -> None:
    """The request is invalid, or valid and refused for lack of a database."""
    assert response.status_code == 503 or 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code


@fuzz
@given(body=BODIES)
async def test_any_body(client: httpx.AsyncClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    check_error(await client.post("/items", content=body, headers=headers))


@fuzz
@given(names=st.lists(QUERY_PARAMETERS), value=st.binary())
async def test_any_query(client: httpx.AsyncClient, names: list[str], value: bytes) -> None:
    query = "&".join(f"{quote(name, errors='replace')}={quote(value)}" for name in names)
    check_error(await client.get(f"/items?{query}"))


@fuzz
@given(item_id=IDS)
async def test_any_id(client: httpx.AsyncClient, item_id: bytes) -> None:
    check_error(await client.get(f"/items/{quote(item_id, safe='')}"))


@fuzz
@given(name=HEADER_NAMES, value=HEADER_VALUES)
async def test_any_header(client: httpx.AsyncClient, name: str, value: bytes) -> None:
    headers = {b"Content-Type": b"application/json", name.encode(): value}
    check_error(await client.post("/items", content=b'{"name": "x"}', headers=headers))
