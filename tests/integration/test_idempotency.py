"""Idempotency keys, on a table of the tests' own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import asyncpg
import httpx
import pytest
from fastapi import Body, FastAPI, Response

from fastapi_k8s.database import Connection
from fastapi_k8s.idempotency import IdempotentRequestDep, run_idempotently
from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve
from tests.integration.conftest import admin, query

RETRIES = 50


def with_notes(app: FastAPI) -> FastAPI:
    """The service, and POST /notes, which answers with the number of the note."""

    @app.post("/notes")
    async def create(
        text: Annotated[str, Body(embed=True)], idempotent_request: IdempotentRequestDep
    ) -> Response:
        async def insert(connection: Connection) -> Response:
            number = await connection.fetchval(
                "INSERT INTO notes (text) VALUES ($1) RETURNING number", text
            )
            if text == "failing":
                raise RuntimeError("after the insert")
            return Response(f"{number}", 201, {"Location": f"/notes/{number}"}, "application/json")

        return await run_idempotently(idempotent_request, insert)

    return app


@pytest.fixture
async def notes(
    make_settings: MakeSettings, serve: Serve, database_url: str
) -> AsyncIterator[httpx.AsyncClient]:
    await admin(database_url, "CREATE TABLE notes (number serial PRIMARY KEY, text text NOT NULL)")
    async with serve(with_notes(create_app(make_settings(idempotency_ttl=60)))) as client:
        yield client


async def post(client: httpx.AsyncClient, key: str, text: str = "a") -> httpx.Response:
    return await client.post("/notes", json={"text": text}, headers={"Idempotency-Key": key})


async def count(database_url: str, table: str = "notes") -> int:
    [(rows,)] = await query(database_url, f"SELECT count(*) FROM {table}")
    return int(rows)


async def test_a_retry_gets_the_first_answer_and_creates_nothing(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    first, second = [await post(notes, "key") for _ in range(2)]
    assert (second.status_code, second.content) == (201, first.content)
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert await count(database_url) == 1


async def test_without_a_key_every_request_creates(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    for _ in range(2):
        assert (await notes.post("/notes", json={"text": "a"})).status_code == 201
    assert await count(database_url) == 2


async def test_a_key_with_another_body_is_refused(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    await post(notes, "key")
    refused = await post(notes, "key", text="b")
    assert refused.status_code == 422
    assert "Idempotency-Key" in refused.json()["detail"]
    assert await count(database_url) == 1


async def test_concurrent_retries_create_once(notes: httpx.AsyncClient, database_url: str) -> None:
    """Each gets the first's answer or is told that it is running; none waits for a connection."""
    answers = await asyncio.gather(*(post(notes, "key") for _ in range(RETRIES)))
    created = {answer.content for answer in answers if answer.status_code == 201}
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len(created) == 1
    assert await count(database_url) == 1
    turned_away = [answer for answer in answers if answer.status_code == 409]
    assert all(answer.headers["retry-after"] == "1" for answer in turned_away)
    assert (await post(notes, "key")).content in created


async def test_a_twin_of_a_running_request_is_turned_away(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('key', 0))")
        assert (await post(notes, "key")).status_code == 409
    await connection.close()
    assert (await post(notes, "key")).status_code == 201


async def test_a_failure_stores_nothing_and_leaves_the_key_free(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    for _ in range(2):
        assert (await post(notes, "key", text="failing")).status_code == 500
    assert await count(database_url) == 0
    assert (await post(notes, "key")).status_code == 201


async def test_keys_of_different_requests_do_not_meet(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    answers = await asyncio.gather(*(post(notes, f"key-{n}") for n in range(RETRIES)))
    assert {answer.status_code for answer in answers} == {201}
    assert await count(database_url) == RETRIES


async def test_an_expired_key_creates_anew_and_expired_keys_are_deleted(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    first = await post(notes, "key")
    for n in range(5):
        await post(notes, f"other-{n}")
    await admin(database_url, "UPDATE idempotency_keys SET expires_at = now() - interval '1 s'")
    again = await post(notes, "key", text="b")
    assert again.status_code == 201
    assert again.content != first.content
    assert await count(database_url, "idempotency_keys") == 1


@pytest.mark.parametrize("key", ["", "k" * 256, "two words", "caf\xe9"])
async def test_an_unfit_key_is_refused(notes: httpx.AsyncClient, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    answer = await notes.post("/notes", json={"text": "a"}, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"
