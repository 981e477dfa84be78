"""Nothing that a client sends makes the items API fail. (503: the database is not there.)"""

import json
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FUZZ = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# What JSON's syntax allows, lone surrogates and all.
TEXT = st.text(st.characters(codec=None, exclude_categories=[]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)
CONTENT = st.fixed_dictionaries({"name": TEXT | VALUES}, optional={"description": TEXT | VALUES})
BODIES = st.binary() | (CONTENT | VALUES).map(lambda value: json.dumps(value).encode())
# What HTTP allows in a header's value.
PRINTABLE = [bytes([byte]) for byte in (*range(32, 127), *range(128, 256))]
HEADERS = st.lists(st.sampled_from(PRINTABLE)).map(lambda value: b"".join(value).strip())


def check(answer: httpx.Response) -> None:
    """The request was refused for what it is, or it was valid."""
    assert answer.status_code == 503 or 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code


@FUZZ
@given(body=BODIES)
async def test_any_body(client: httpx.AsyncClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    check(await client.post("/items", content=body, headers=headers))


@FUZZ
@given(names=st.lists(st.sampled_from(["limit", "cursor", "x"]) | st.text()), value=st.binary())
async def test_any_query(client: httpx.AsyncClient, names: list[str], value: bytes) -> None:
    query = "&".join(f"{quote(name, errors='replace')}={quote(value)}" for name in names)
    check(await client.get(f"/items?{query}"))


@FUZZ
@given(item_id=st.binary(min_size=1) | st.uuids().map(lambda given: str(given).encode()))
async def test_any_id(client: httpx.AsyncClient, item_id: bytes) -> None:
    check(await client.get(f"/items/{quote(item_id, safe='')}"))


@FUZZ
@given(
    name=st.sampled_from(
        ["Idempotency-Key", "Content-Type", "X-Request-ID", "traceparent", "If-Match", "Origin"]
    ),
    value=HEADERS,
)
async def test_any_header(client: httpx.AsyncClient, name: str, value: bytes) -> None:
    headers = {b"Content-Type": b"application/json", name.encode(): value}
    check(await client.post("/items", content=b'{"name": "x"}', headers=headers))
