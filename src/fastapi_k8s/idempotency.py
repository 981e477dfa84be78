"""POST requests that are safe to retry (draft-ietf-httpapi-idempotency-key-header)."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Annotated

import asyncpg
from fastapi import Depends, Header, Request, Response

from .database import Connection, Database
from .dependencies import DatabaseDep, SettingsDep
from .errors import ProblemError

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="A retry with the same key gets the first response and creates nothing.",
    ),
]

# Not pg_advisory_xact_lock(), which waits: each concurrent duplicate would occupy a connection.
TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))"
FIND_RESPONSE = """
SELECT fingerprint, status, headers, body
FROM idempotency_keys
WHERE key = $1 AND expires_at > now()
"""
STORE_RESPONSE = """
INSERT INTO idempotency_keys (key, fingerprint, status, headers, body, expires_at)
VALUES ($1, $2, $3, $4, $5, now() + $6)
ON CONFLICT (key) DO UPDATE SET
    fingerprint = EXCLUDED.fingerprint,
    status = EXCLUDED.status,
    headers = EXCLUDED.headers,
    body = EXCLUDED.body,
    expires_at = EXCLUDED.expires_at
"""
# Each new key deletes up to ten expired ones, so that the table does not grow without bound.
# SKIP LOCKED: no request waits for another.
DELETE_EXPIRED = """
DELETE FROM idempotency_keys
WHERE key IN (
    SELECT key FROM idempotency_keys
    WHERE expires_at < now()
    LIMIT 10
    FOR UPDATE SKIP LOCKED
)
"""


@dataclass(frozen=True)
class IdempotentRequest:
    """What `run_idempotently` needs: the key, if any, and the database and the TTL of its response.

    `fingerprint` distinguishes a retry of the same request from another request.
    """

    database: Database
    ttl: timedelta
    key: str | None
    fingerprint: bytes


async def get_idempotent_request(
    request: Request, database: DatabaseDep, settings: SettingsDep, key: IdempotencyKey = None
) -> IdempotentRequest:
    """The `IdempotentRequest` of this request."""
    fingerprint = b"" if key is None else await _fingerprint(request)
    ttl = timedelta(seconds=settings.idempotency_ttl)
    return IdempotentRequest(database, ttl, key, fingerprint)


async def _fingerprint(request: Request) -> bytes:
    request_line = f"{request.method} {request.url.path}\n"
    return sha256(request_line.encode() + await request.body()).digest()


IdempotentRequestDep = Annotated[IdempotentRequest, Depends(get_idempotent_request)]


async def run_idempotently(
    idempotent_request: IdempotentRequest, create: Callable[[Connection], Awaitable[Response]]
) -> Response:
    """Run `create` in a transaction, or return the response that it gave to the same key before.

    Raises ProblemError: 409 if a request with the key is in progress, 422 if the key was used for
    another request.
    """
    async with idempotent_request.database.transaction() as connection:
        if idempotent_request.key is None:
            return await create(connection)
        if not await connection.fetchval(TRY_LOCK, idempotent_request.key):
            raise ProblemError(
                409,
                "A request with this Idempotency-Key is still in progress.",
                {"Retry-After": "1"},
            )
        stored = await connection.fetchrow(FIND_RESPONSE, idempotent_request.key)
        if stored is not None:
            return _stored_response(stored, idempotent_request.fingerprint)
        response = await create(connection)
        await _store_response(connection, idempotent_request, response)
        return response


def _stored_response(stored: asyncpg.Record, fingerprint: bytes) -> Response:
    if stored["fingerprint"] != fingerprint:
        raise ProblemError(422, "This Idempotency-Key was used for another request.")
    return Response(
        content=stored["body"],
        status_code=stored["status"],
        headers=json.loads(stored["headers"]),
    )


async def _store_response(
    connection: Connection, idempotent_request: IdempotentRequest, response: Response
) -> None:
    await connection.execute(
        STORE_RESPONSE,
        idempotent_request.key,
        idempotent_request.fingerprint,
        response.status_code,
        json.dumps(dict(response.headers)),
        bytes(response.body),
        idempotent_request.ttl,
    )
    await connection.execute(DELETE_EXPIRED)
