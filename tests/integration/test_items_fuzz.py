"""Whatever a client sends, the service on its real servers does not fail."""

import json
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ANY_TEXT = st.text(st.characters(codec=None), max_size=300)  # lone surrogates and NUL among it
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=5,
)
SEARCH = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@SEARCH
@given(
    content=st.fixed_dictionaries({"name": ANY_TEXT}, optional={"description": ANY_JSON})
    | st.dictionaries(st.sampled_from(["name", "description", "other"]), ANY_JSON)
    | ANY_JSON,
    headers=st.fixed_dictionaries(
        {}, optional={"Idempotency-Key": st.text("abc \t\x80\xff", max_size=300)}
    ),
)
async def test_no_content_makes_a_creation_fail(
    client: httpx.AsyncClient, content: Any, headers: dict[str, str]
) -> None:
    answer = await client.post(
        "/items",
        content=json.dumps(content).encode(),
        headers={
            b"Content-Type": b"application/json",
            **{k.encode(): v.strip().encode("latin-1") for k, v in headers.items()},
        },
    )
    assert answer.status_code in {201, 409, 422}, answer.text
    if answer.status_code == 201:
        assert answer.json()["name"] == content["name"]
        tag = {b"If-Match": answer.headers["etag"].encode()}
        replaced = await client.put(answer.headers["location"], json=content, headers=tag)
        assert replaced.status_code in {200, 412}, replaced.text


@SEARCH
@given(
    parameters=st.dictionaries(
        st.sampled_from(["cursor", "limit", "other"]), st.text(max_size=60) | st.integers()
    )
)
async def test_no_query_makes_the_list_fail(
    client: httpx.AsyncClient, parameters: dict[str, Any]
) -> None:
    answer = await client.get("/items", params=parameters)
    assert answer.status_code in {200, 422}, answer.text


@SEARCH
@given(item=st.binary(min_size=1, max_size=300) | st.uuids().map(lambda known: known.bytes))
async def test_no_id_makes_a_read_fail(client: httpx.AsyncClient, item: bytes) -> None:
    answer = await client.get(f"/items/{quote(item, safe='')}")
    assert answer.status_code in {404, 422}, answer.text
