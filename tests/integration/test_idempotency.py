"""A retry with the same Idempotency-Key gets the first response and creates nothing.

The tests have their own table, so that they do not depend on the example.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

import asyncpg
import httpx
import pytest
from fastapi import Body, Depends, FastAPI, File, Form, Request, Response, UploadFile, params
from fastapi.responses import StreamingResponse
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from fastapi_k8s.auth import require_scope
from fastapi_k8s.caller import Caller
from fastapi_k8s.conditional import json_response_with_etag
from fastapi_k8s.connection_pool import Connection
from fastapi_k8s.database import Database, open_database
from fastapi_k8s.idempotency import (
    IdempotentRequest,
    IdempotentRequestDep,
    KeyedRequest,
    run_idempotently,
)
from fastapi_k8s.main import create_app
from fastapi_k8s.settings import Settings
from tests.api.auth_app import bearer
from tests.conftest import MakeSettings, Serve
from tests.integration.conftest import execute_sql, fetch_rows
from tests.issuer import AUDIENCE, Issuer

CONCURRENT_REQUESTS = 50
INSERT_NOTE = "INSERT INTO notes (text) VALUES ($1) RETURNING number"


def create_app_with_notes(settings: Settings, *dependencies: params.Depends) -> FastAPI:
    """The application with `POST /notes`, which responds with the number of the new note."""
    app = create_app(settings)

    @app.post("/notes", dependencies=dependencies)
    async def create_note(
        text: Annotated[str, Body(embed=True)], idempotent_request: IdempotentRequestDep
    ) -> Response:
        async def insert(connection: Connection) -> Response:
            number = await connection.fetchval(INSERT_NOTE, text)
            if text == "failing":
                raise RuntimeError("after the insert")
            response = json_response_with_etag(f"{number}".encode(), status=201)
            response.headers["Location"] = f"/notes/{number}"
            response.headers.append("Link", "<first>")
            response.headers.append("Link", "<second>")
            return response

        return await run_idempotently(idempotent_request, insert)

    @app.post("/pairs")
    async def create_two_notes(
        text: Annotated[str, Body(embed=True)], idempotent_request: IdempotentRequestDep
    ) -> Response:
        """Create a note in each of two statements. With the text "failing" the second one fails."""

        async def insert(connection: Connection) -> Response:
            async with connection.transaction():
                await connection.execute(INSERT_NOTE, text)
                other_text = None if text == "failing" else text
                rows = await connection.fetch(f"{INSERT_NOTE}, text", other_text)
            return json_response_with_etag(f"{rows[0]['number']}".encode(), status=201)

        return await run_idempotently(idempotent_request, insert)

    return app


@pytest.fixture
async def notes(
    make_settings: MakeSettings, serve: Serve, database_url: str
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with `/notes`."""
    await execute_sql(
        database_url, "CREATE TABLE notes (number serial PRIMARY KEY, text text NOT NULL)"
    )
    async with serve(create_app_with_notes(make_settings(idempotency_ttl=60))) as client:
        yield client


async def post_note(
    client: httpx.AsyncClient, key: str, text: str = "a", authorization: str = ""
) -> httpx.Response:
    headers = {"Idempotency-Key": key}
    if authorization:
        headers["Authorization"] = authorization
    return await client.post("/notes", json={"text": text}, headers=headers)


async def count_rows(database_url: str, table: str = "notes") -> int:
    [(rows,)] = await fetch_rows(database_url, f"SELECT count(*) FROM {table}")
    return int(rows)


async def test_a_retry_gets_the_status_headers_and_body_of_the_first_response(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    first = await post_note(notes, "key")
    retry = await post_note(notes, "key")
    assert (first.status_code, first.content) == (201, b"1")
    assert (retry.status_code, retry.content) == (first.status_code, first.content)
    assert first.headers.pop("x-request-id") != retry.headers.pop("x-request-id")
    assert {"location", "etag", "content-type"} <= set(first.headers)
    assert first.headers.get_list("link") == ["<first>", "<second>"]
    assert sorted(retry.headers.multi_items()) == sorted(first.headers.multi_items())
    assert await count_rows(database_url) == 1


async def test_every_request_without_a_key_creates(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    for _ in range(2):
        assert (await notes.post("/notes", json={"text": "a"})).status_code == 201
    assert await count_rows(database_url) == 2


async def test_the_key_of_a_request_with_another_body_is_refused(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    await post_note(notes, "key")
    refused = await post_note(notes, "key", text="b")
    assert refused.status_code == 422
    assert "Idempotency-Key" in refused.json()["detail"]
    assert await count_rows(database_url) == 1


FORMS: dict[str, dict[str, Any]] = {
    "urlencoded": {"data": {"text": "a"}},
    "another text": {"data": {"text": "b"}},
    "multipart": {"files": {"text": (None, "a")}},
    "file": {"files": {"file": ("a.txt", b"a", "text/plain")}},
    "file with another content": {"files": {"file": ("a.txt", b"b", "text/plain")}},
    "file with another name": {"files": {"file": ("b.txt", b"a", "text/plain")}},
    "file with another type": {"files": {"file": ("a.txt", b"a", "text/html")}},
    "large file": {"files": {"file": ("large", bytes(1_100_000) + b"a")}},
    "large file with another end": {"files": {"file": ("large", bytes(1_100_000) + b"b")}},
    "bytes": {"files": {"content": ("a.txt", b"a")}},
    "bytes with another content": {"files": {"content": ("a.txt", b"b")}},
    "empty": {"headers": {"Content-Type": "application/x-www-form-urlencoded"}},
}
"""Arguments for httpx, which chooses another boundary for each multipart request."""


@pytest.fixture
async def uploads(
    make_settings: MakeSettings, serve: Serve, notes: httpx.AsyncClient
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with `POST /uploads`, which creates a note with the content."""
    app = create_app(make_settings(max_body_size=2_000_000))

    async def read_content(content: Annotated[bytes, File()] = b"") -> bytes:
        return content

    @app.post("/uploads")
    async def upload(
        read_before: Annotated[bytes, Depends(read_content)],
        idempotent_request: IdempotentRequestDep,
        text: Annotated[str, Form()] = "",
        file: UploadFile | None = None,
    ) -> Response:
        content = read_before + text.encode() + (b"" if file is None else await file.read())

        async def insert(connection: Connection) -> Response:
            number = await connection.fetchval(INSERT_NOTE, repr(content[-10:]))
            body = f"{number} {len(content)}".encode()
            return Response(body, 201, {"Content-Type": "text/plain"})

        return await run_idempotently(idempotent_request, insert)

    async with serve(app) as client:
        yield client


async def post_form(client: httpx.AsyncClient, form: str, key: str) -> httpx.Response:
    arguments = dict(FORMS[form])
    headers = arguments.pop("headers", {}) | {"Idempotency-Key": key}
    return await client.post("/uploads", headers=headers, **arguments)


SAME_CONTENT = {"urlencoded", "multipart"}
"""Forms with the same fields in another encoding, which are the same request."""


@pytest.mark.parametrize("form", FORMS)
async def test_a_retry_of_a_form_gets_the_first_response(
    uploads: httpx.AsyncClient, database_url: str, form: str
) -> None:
    first = await post_form(uploads, form, "key")
    retry = await post_form(uploads, form, "key")
    length = 1_100_001 if "large" in form else (0 if form == "empty" else 1)
    assert (first.status_code, first.text) == (201, f"1 {length}")
    assert (retry.status_code, retry.text) == (first.status_code, first.text)
    assert await count_rows(database_url) == 1


@pytest.mark.parametrize("form", FORMS)
async def test_the_key_of_a_form_with_another_content_is_refused(
    uploads: httpx.AsyncClient, database_url: str, form: str
) -> None:
    assert (await post_form(uploads, form, "key")).status_code == 201
    for other_form in FORMS.keys() - {form}:
        if {form, other_form} != SAME_CONTENT:
            assert (await post_form(uploads, other_form, "key")).status_code == 422
    assert await count_rows(database_url) == 1


async def test_a_body_that_something_else_has_consumed_is_an_error(
    make_settings: MakeSettings, serve: Serve, notes: httpx.AsyncClient, database_url: str
) -> None:
    """Otherwise requests with different bodies would have the same fingerprint."""
    app = create_app(make_settings())

    async def consume(request: Request) -> None:
        async for _ in request.stream():
            pass

    @app.post("/notes", dependencies=[Depends(consume)])
    async def create_note(idempotent_request: IdempotentRequestDep) -> Response:
        async def insert(connection: Connection) -> Response:
            await connection.execute(INSERT_NOTE, "a")
            return Response()

        return await run_idempotently(idempotent_request, insert)

    headers = {"Idempotency-Key": "key"}
    async with serve(app) as client:
        assert (await post_note(client, "key")).status_code == 500
        form = await client.post("/notes", data={"text": "a"}, headers=headers)
        assert form.status_code == 500
    assert await count_rows(database_url) == 0


async def test_concurrent_requests_with_one_key_create_once(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    """Each gets the first response, or 409. None waits for a connection."""
    responses = await asyncio.gather(*[post_note(notes, "key") for _ in range(CONCURRENT_REQUESTS)])
    created = [response for response in responses if response.status_code == 201]
    refused = [response for response in responses if response.status_code == 409]
    assert len(created) + len(refused) == CONCURRENT_REQUESTS
    assert {response.content for response in created} == {b"1"}
    for response in refused:
        assert response.headers["retry-after"] == "1"
    assert await count_rows(database_url) == 1
    assert (await post_note(notes, "key")).content == b"1"


async def test_a_request_is_409_while_another_one_with_its_key_is_in_progress(
    make_settings: MakeSettings, serve: Serve, notes: httpx.AsyncClient
) -> None:
    """The first request uses another connection pool, like one in another process."""
    app = create_app(make_settings())
    is_running = asyncio.Event()
    may_end = asyncio.Event()

    @app.post("/notes")
    async def wait_for_permission(idempotent_request: IdempotentRequestDep) -> Response:
        async def wait(_: Connection) -> Response:
            is_running.set()
            await may_end.wait()
            return Response()

        return await run_idempotently(idempotent_request, wait)

    async with serve(app) as other_client:
        running_request = asyncio.create_task(post_note(other_client, "key"))
        async with asyncio.timeout(20):
            await is_running.wait()
        response = await post_note(notes, "key")
        may_end.set()
        assert (await running_request).status_code == 200
    assert response.status_code == 409
    assert "still in progress" in response.json()["detail"]


async def test_a_key_does_not_collide_with_the_lock_of_the_migrations(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('migrations', 0))")
        assert (await post_note(notes, "migrations")).status_code == 201
    await connection.close()


async def test_a_key_belongs_to_the_caller(notes: httpx.AsyncClient, database_url: str) -> None:
    responses = [
        await post_note(notes, "key"),
        await post_note(notes, "key", authorization="Bearer one"),
        await post_note(notes, "key", authorization="Bearer two"),
        await post_note(notes, "key", authorization="Bearer one"),
    ]
    assert [response.content for response in responses] == [b"1", b"2", b"3", b"2"]
    assert await count_rows(database_url) == 3
    stored_callers = await fetch_rows(database_url, "SELECT caller FROM idempotency_keys")
    assert "Bearer" not in str(stored_callers)


@pytest.mark.parametrize(
    ("user", "numbers"),
    [
        # The key belongs to the credentials, which are another token.
        (SimpleUser("one"), [b"1", b"2"]),
        (Caller("https://issuer.example", "one", frozenset(), {}), [b"1", b"1"]),
    ],
)
async def test_a_key_can_be_used_with_the_authentication_middleware_of_a_fork(
    make_settings: MakeSettings,
    serve: Serve,
    notes: httpx.AsyncClient,
    user: Any,
    numbers: list[bytes],
) -> None:
    class Backend(AuthenticationBackend):
        async def authenticate(self, _: HTTPConnection) -> tuple[AuthCredentials, Any]:
            return AuthCredentials(), user

    app = create_app_with_notes(make_settings())
    app.add_middleware(AuthenticationMiddleware, backend=Backend())
    async with serve(app) as client:
        responses = [
            await post_note(client, "key", authorization=f"Bearer {token}") for token in "ab"
        ]
    assert [response.content for response in responses] == numbers


async def test_a_key_belongs_to_the_subject_of_the_access_token(
    make_settings: MakeSettings,
    serve: Serve,
    issuer: Issuer,
    notes: httpx.AsyncClient,
    database_url: str,
) -> None:
    """A retry with a renewed token gets the first response, and another subject does not."""
    settings = make_settings(jwt_issuer=issuer.url, jwt_audience=AUDIENCE)
    app = create_app_with_notes(settings, require_scope())
    first, renewed = issuer.sign(sub="one", jti="1"), issuer.sign(sub="one", jti="2")
    other = issuer.sign(sub="two")
    async with serve(app) as client:
        tokens = [first, renewed, other, first]
        responses = [
            await post_note(client, "key", authorization=f"Bearer {token}") for token in tokens
        ]
    assert [response.content for response in responses] == [b"1", b"1", b"2", b"1"]
    stored_callers = await fetch_rows(database_url, "SELECT caller FROM idempotency_keys")
    assert len(stored_callers) == 2
    assert issuer.url not in str(stored_callers)


async def test_a_key_belongs_to_the_subject_if_the_caller_is_a_later_parameter(
    make_settings: MakeSettings, serve: Serve, issuer: Issuer, notes: httpx.AsyncClient
) -> None:
    """FastAPI calls dependencies in the order of the parameters."""
    app = create_app(make_settings(jwt_issuer=issuer.url, jwt_audience=AUDIENCE))

    @app.post("/late")
    async def create_note(
        idempotent_request: IdempotentRequestDep, caller: Annotated[Caller, require_scope()]
    ) -> Response:
        async def insert(connection: Connection) -> Response:
            number = await connection.fetchval(INSERT_NOTE, caller.subject)
            return json_response_with_etag(f"{number}".encode(), status=201)

        return await run_idempotently(idempotent_request, insert)

    tokens = [issuer.sign(sub="one", jti="1"), issuer.sign(sub="one", jti="2")]
    async with serve(app) as client:
        responses = [
            await client.post("/late", headers={"Idempotency-Key": "key"} | bearer(token))
            for token in tokens
        ]
    assert [response.content for response in responses] == [b"1", b"1"]


async def test_a_retry_through_another_entrance_gets_the_first_response(
    make_settings: MakeSettings, serve: Serve, notes: httpx.AsyncClient
) -> None:
    """The other entrance is a proxy that adds a prefix to the path."""
    first = await post_note(notes, "key")
    async with serve(create_app_with_notes(make_settings()), root_path="/api") as client:
        retry = await post_note(client, "key")
    assert (retry.status_code, retry.content) == (first.status_code, first.content)


async def test_the_key_of_a_request_with_another_query_is_refused(
    notes: httpx.AsyncClient,
) -> None:
    headers = {"Idempotency-Key": "key"}
    await notes.post("/notes", json={"text": "a"}, headers=headers)
    response = await notes.post("/notes?dry-run=1", json={"text": "a"}, headers=headers)
    assert response.status_code == 422


@pytest.mark.parametrize(
    ("quoted", "unquoted"),
    [('"key"', "key"), (r'"a\"b\\c"', r'a"b\c'), (f'"{"k" * 255}"', "k" * 255)],
)
async def test_a_key_in_quotes_is_the_same_key(
    notes: httpx.AsyncClient, quoted: str, unquoted: str
) -> None:
    first = await post_note(notes, quoted)
    retry = await post_note(notes, unquoted)
    assert (retry.status_code, retry.content) == (first.status_code, first.content) == (201, b"1")


async def test_a_valid_response_is_never_replaced(
    make_settings: MakeSettings, serve: Serve, notes: httpx.AsyncClient, database_url: str
) -> None:
    """The row is stored without the lock, as after a failover, while a request is running."""
    app = create_app(make_settings())

    @app.post("/notes")
    async def create_note(idempotent_request: IdempotentRequestDep) -> Response:
        async def insert(connection: Connection) -> Response:
            await connection.execute(INSERT_NOTE, "not stored")
            await execute_sql(
                database_url,
                "INSERT INTO idempotency_keys"
                " VALUES ('', 'key', '', 201, '[]', 'first', now() + interval '1 h')",
            )
            return Response(b"second", 201)

        return await run_idempotently(idempotent_request, insert)

    async with serve(app) as client:
        assert (await post_note(client, "key")).status_code == 409
    assert await count_rows(database_url) == 0
    assert await fetch_rows(database_url, "SELECT body FROM idempotency_keys") == [(b"first",)]


async def test_a_request_that_fails_stores_nothing_and_does_not_use_up_its_key(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    for _ in range(2):
        assert (await post_note(notes, "key", text="failing")).status_code == 500
    assert await count_rows(database_url) == 0
    assert (await post_note(notes, "key")).status_code == 201


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "key"}], ids=["no-key", "key"])
async def test_a_creation_of_several_statements_that_fails_halfway_leaves_nothing(
    notes: httpx.AsyncClient, database_url: str, headers: dict[str, str]
) -> None:
    for _ in range(2):
        failed = await notes.post("/pairs", json={"text": "failing"}, headers=headers)
        assert failed.status_code == 500
        assert await count_rows(database_url) == 0
        assert await count_rows(database_url, "idempotency_keys") == 0
    created = await notes.post("/pairs", json={"text": "a"}, headers=headers)
    assert created.status_code == 201
    assert await count_rows(database_url) == 2


@pytest.mark.parametrize("path", ["/notes", "/pairs"])
@pytest.mark.parametrize("has_key", [False, True], ids=["no-key", "key"])
async def test_a_creation_succeeds_once_after_a_migration_has_changed_a_type(
    make_settings: MakeSettings, serve: Serve, database_url: str, path: str, has_key: bool
) -> None:
    await execute_sql(
        database_url, "CREATE TABLE notes (number serial PRIMARY KEY, text text NOT NULL)"
    )
    changes = [
        "ALTER TABLE notes ALTER COLUMN text TYPE varchar(200)",
        "ALTER TABLE notes ALTER COLUMN number TYPE bigint",
    ]
    async with serve(create_app_with_notes(make_settings(database_pool_size=1))) as client:
        for number, change in enumerate([*changes, "SELECT 1"]):
            headers = {"Idempotency-Key": str(number)} if has_key else {}
            created = await client.post(path, json={"text": "a"}, headers=headers)
            assert created.status_code == 201
            await execute_sql(database_url, change)
    rows = 3 if path == "/notes" else 6
    assert await count_rows(database_url) == rows


@pytest.mark.parametrize("key", [None, "key"], ids=["no-key", "key"])
async def test_only_a_creation_with_a_key_begins_in_a_transaction(
    make_settings: MakeSettings, database_url: str, key: str | None
) -> None:
    """BEGIN and COMMIT would take longer than a single statement, which is atomic anyway."""

    async def create(connection: Connection) -> Response:
        return Response(str(connection.is_in_transaction()))

    async with open_database(make_settings(), pool_size=1) as database:
        response = await run_idempotently(idempotent_request(database, key), create)
    assert response.body == str(key is not None).encode()


@pytest.mark.parametrize("key", [None, "key"], ids=["no-key", "key"])
async def test_a_response_without_a_whole_body_is_a_programming_error(
    make_settings: MakeSettings, notes: httpx.AsyncClient, database_url: str, key: str | None
) -> None:
    """Without a key too, so that it does not depend on the clients when developers notice it."""

    async def create(connection: Connection) -> Response:
        async with connection.transaction():
            await connection.execute(INSERT_NOTE, "a")
        return StreamingResponse(iter([b"text"]))

    async with open_database(make_settings(), pool_size=1) as database:
        with pytest.raises(TypeError, match=r"whole body.* not a StreamingResponse"):
            await run_idempotently(idempotent_request(database, key), create)
    assert await count_rows(database_url, "idempotency_keys") == 0
    assert await count_rows(database_url) == (1 if key is None else 0)


def idempotent_request(database: Database, key: str | None) -> IdempotentRequest:
    """What `get_idempotent_request` returns for a request with this key."""
    if key is None:
        return IdempotentRequest(database)
    request = Request({"type": "http", "headers": []})
    return IdempotentRequest(database, KeyedRequest(key, timedelta(minutes=1), request, b""))


async def test_requests_with_different_keys_are_independent(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    responses = await asyncio.gather(
        *[post_note(notes, f"key-{number}") for number in range(CONCURRENT_REQUESTS)]
    )
    assert {response.status_code for response in responses} == {201}
    assert await count_rows(database_url) == CONCURRENT_REQUESTS


async def test_an_expired_key_can_be_used_again_and_expired_keys_are_deleted(
    notes: httpx.AsyncClient, database_url: str
) -> None:
    first = await post_note(notes, "key")
    for number in range(5):
        await post_note(notes, f"other-{number}")
    expire = "UPDATE idempotency_keys SET expires_at = now() - interval '1 s'"
    await execute_sql(database_url, expire)
    second = await post_note(notes, "key", text="b")
    assert second.status_code == 201
    assert second.content != first.content
    assert await count_rows(database_url, "idempotency_keys") == 1


@pytest.mark.parametrize(
    "key",
    ["", "k" * 256, "two words", "caf\xe9", '""', '"open', f'"{"k" * 256}"', '"a" "b"', r'"\a"'],
)
async def test_an_invalid_key_is_422(notes: httpx.AsyncClient, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    response = await notes.post("/notes", json={"text": "a"}, headers=headers)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Idempotency-Key"
