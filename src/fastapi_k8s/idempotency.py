"""POST requests that are safe to retry (draft-ietf-httpapi-idempotency-key-header)."""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Annotated

import asyncpg
from fastapi import Depends, Header, Request, Response
from pydantic import AfterValidator
from starlette.datastructures import UploadFile

from .auth import find_caller
from .connection_pool import Connection
from .database import Database, repeat_after_schema_change
from .dependencies import DatabaseDep, get_settings
from .errors import ProblemError


def _unquote(key: str | None) -> str | None:
    if key is None or not key.startswith('"'):
        return key
    return re.sub(r"\\(.)", r"\1", key[1:-1])


# A String of RFC 9651 (section 3.3.3), as the draft defines it, or the key without quotes, as most
# clients send it.
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"""^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-~][!-~]{0,254})$""",
        description="A retry with the same key gets the first response and creates nothing."
        ' `"key"` and `key` are the same key.',
    ),
    AfterValidator(_unquote),
]

# Not pg_advisory_xact_lock(), which waits: each concurrent duplicate would occupy a connection.
# The prefix separates these locks from others that are derived from a text, such as the one of the
# migrations.
TRY_LOCK = """
SELECT pg_try_advisory_xact_lock(hashtextextended('idempotency_keys ' || $1 || ' ' || $2, 0))
"""
FIND_RESPONSE = """
SELECT fingerprint, status, headers, body
FROM idempotency_keys
WHERE caller = $1 AND key = $2 AND expires_at > now()
"""
# Replaces an expired response, never a valid one.
STORE_RESPONSE = """
INSERT INTO idempotency_keys (caller, key, fingerprint, status, headers, body, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, now() + $7)
ON CONFLICT (caller, key) DO UPDATE SET
    fingerprint = EXCLUDED.fingerprint,
    status = EXCLUDED.status,
    headers = EXCLUDED.headers,
    body = EXCLUDED.body,
    expires_at = EXCLUDED.expires_at
WHERE idempotency_keys.expires_at <= now()
RETURNING true
"""
# Each new key deletes up to ten expired ones, so that the table does not grow without bound.
# SKIP LOCKED: no request waits for another.
DELETE_EXPIRED = """
DELETE FROM idempotency_keys
WHERE (caller, key) IN (
    SELECT caller, key FROM idempotency_keys
    WHERE expires_at < now()
    LIMIT 10
    FOR UPDATE SKIP LOCKED
)
"""


FORM_MEDIA_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")

FILE_CHUNK_BYTES = 262_144
"""How much of an uploaded file is in memory, and blocks the event loop for its digest."""


@dataclass(frozen=True)
class KeyedRequest:
    """A request with an Idempotency-Key, whose response is stored for `ttl`.

    `fingerprint` distinguishes a retry of the same request from another request.
    """

    key: str
    ttl: timedelta
    request: Request
    fingerprint: bytes

    @property
    def caller(self) -> str:
        """A digest of the caller, to whom the key belongs. Only the path operation can read it:
        FastAPI may call the dependency that authenticates the caller after the one that creates
        this object."""
        return _caller(self.request)


@dataclass(frozen=True)
class IdempotentRequest:
    """What `run_idempotently` needs: the database, and the request if it has a key."""

    database: Database
    keyed_request: KeyedRequest | None = None


async def get_idempotent_request(
    request: Request, database: DatabaseDep, key: IdempotencyKey = None
) -> IdempotentRequest:
    """The `IdempotentRequest` of this request.

    Calls `get_settings` itself instead of declaring it, because a dependency would add 12 µs to
    each request without a key (docs/decisions/0024-cpu-time-per-request.md).
    """
    if key is None:
        return IdempotentRequest(database)
    settings = await get_settings(request)
    ttl = timedelta(seconds=settings.idempotency_ttl)
    keyed_request = KeyedRequest(key, ttl, request, await _fingerprint(request))
    return IdempotentRequest(database, keyed_request)


IdempotentRequestDep = Annotated[IdempotentRequest, Depends(get_idempotent_request)]


def _caller(request: Request) -> str:
    """A digest of who sent the request, or of its credentials, or "" if it has none.

    So a retry with a renewed access token is a retry, if the operation requires an access token.
    """
    caller = find_caller(request)
    if caller is not None:
        return caller.digest()
    credentials = request.headers.get("Authorization")
    return sha256(credentials.encode()).hexdigest() if credentials else ""


async def _fingerprint(request: Request) -> bytes:
    # Without the prefix of a proxy: a retry through another entrance is the same request.
    path = request.url.path.removeprefix(request.scope["root_path"])
    request_line = f"{request.method} {path}?{request.url.query}\n"
    return sha256(request_line.encode() + await _read_content(request)).digest()


async def _read_content(request: Request) -> bytes:
    """The body, or the content of a form that FastAPI has read before the dependencies."""
    try:
        return await request.body()
    except RuntimeError:
        # Without this check, all bodies that another dependency has read would be an empty form.
        media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type not in FORM_MEDIA_TYPES:
            raise
        return await _read_form_content(request)


async def _read_form_content(request: Request) -> bytes:
    """The fields and the digests of the files. Unlike the body, they do not depend on the boundary
    between the parts, which a client may choose again for a retry."""
    fields: list[tuple[str, str | list[str | None]]] = []
    form = await request.form()
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.append((name, value))
        else:
            digest = await _digest_file(value)
            fields.append((name, [value.filename, value.content_type, digest]))
    return json.dumps(fields).encode()


async def _digest_file(file: UploadFile) -> str:
    # Another dependency may have read the file, and the path operation reads it from its beginning.
    await file.seek(0)
    digest = sha256()
    while chunk := await file.read(FILE_CHUNK_BYTES):
        digest.update(chunk)
    await file.seek(0)
    return digest.hexdigest()


@repeat_after_schema_change
async def run_idempotently(
    idempotent_request: IdempotentRequest, create: Callable[[Connection], Awaitable[Response]]
) -> Response:
    """Run `create`, or return the response that it gave to the same key before.

    With a key, `create` runs in the transaction that stores its response. Without a key, each of
    its statements is its own transaction, because BEGIN and COMMIT would take longer than a single
    statement. So a `create` of several statements opens `connection.transaction()`, which is a
    savepoint if there is a key. `create` must have no other effect, because it may run twice: read
    an uploaded file before. `create` must return its whole body, because it is stored: not a
    `StreamingResponse`, an `EventSourceResponse` or a `FileResponse`.

    Raises ProblemError: 409 if a request with the key is in progress, 422 if the key was used for
    another request. Raises TypeError, with or without a key, for a response without a body.
    """
    keyed_request = idempotent_request.keyed_request
    if keyed_request is None:
        async with idempotent_request.database.connection() as connection:
            response = await create(connection)
            _require_body(response)
            return response
    async with idempotent_request.database.transaction() as connection:
        caller_and_key = (keyed_request.caller, keyed_request.key)
        if not await connection.fetchval(TRY_LOCK, *caller_and_key):
            raise _in_progress()
        stored_response = await connection.fetchrow(FIND_RESPONSE, *caller_and_key)
        if stored_response is None:
            response = await create(connection)
            _require_body(response)
            await _store_response(connection, keyed_request, response)
            return response
    # Not in the transaction, which an error would roll back in another task: a request right after
    # the 422 could find the lock still held, and get 409.
    return _restore_response(stored_response, keyed_request.fingerprint)


def _require_body(response: Response) -> None:
    # Also without a key. Otherwise the developer would not notice the error until a client sends a
    # key.
    if not hasattr(response, "body"):
        raise TypeError(
            "`create` must return a Response with its whole body, because run_idempotently stores"
            f" it, and not a {type(response).__name__}."
        )


def _in_progress() -> ProblemError:
    return ProblemError(
        409, "A request with this Idempotency-Key is still in progress.", {"Retry-After": "1"}
    )


def _restore_response(stored_response: asyncpg.Record, fingerprint: bytes) -> Response:
    if stored_response["fingerprint"] != fingerprint:
        raise ProblemError(422, "This Idempotency-Key was used for another request.")
    response = Response(stored_response["body"], stored_response["status"])
    headers = json.loads(stored_response["headers"])
    response.raw_headers = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return response


async def _store_response(
    connection: Connection, keyed_request: KeyedRequest, response: Response
) -> None:
    """Store the response. Raises ProblemError (409) if another one is stored by now."""
    is_stored = await connection.fetchval(
        STORE_RESPONSE,
        keyed_request.caller,
        keyed_request.key,
        keyed_request.fingerprint,
        response.status_code,
        json.dumps(response.headers.items()),
        bytes(response.body),
        keyed_request.ttl,
    )
    if not is_stored:
        # Only if two requests held the lock, for example on both sides of a failover.
        raise _in_progress()
    await connection.execute(DELETE_EXPIRED)
