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


@dataclass(frozen=True)
class IdempotentRequest:
    """What `run_idempotently` needs: the key, if any, and the database and the TTL of its response.

    A key belongs to the caller of `request`. `fingerprint` distinguishes a retry of the same
    request from another request.
    """

    database: Database
    key: str | None = None
    ttl: timedelta = timedelta()
    request: Request | None = None
    fingerprint: bytes = b""

    @property
    def caller(self) -> str:
        """A digest of the caller. Only the path operation can read it: FastAPI may call the
        dependency that authenticates the caller after the one that creates this object."""
        return "" if self.request is None else _caller(self.request)


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
    return IdempotentRequest(database, key, ttl, request, await _fingerprint(request))


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
    return sha256(request_line.encode() + await request.body()).digest()


@repeat_after_schema_change
async def run_idempotently(
    idempotent_request: IdempotentRequest, create: Callable[[Connection], Awaitable[Response]]
) -> Response:
    """Run `create`, or return the response that it gave to the same key before.

    With a key, `create` runs in the transaction that stores its response. Without a key, each of
    its statements is its own transaction, because BEGIN and COMMIT would take longer than a single
    statement. So a `create` of several statements opens `connection.transaction()`, which is a
    savepoint if there is a key. `create` must have no other effect, because it may run twice.

    Raises ProblemError: 409 if a request with the key is in progress, 422 if the key was used for
    another request.
    """
    if idempotent_request.key is None:
        async with idempotent_request.database.connection() as connection:
            return await create(connection)
    async with idempotent_request.database.transaction() as connection:
        caller_and_key = (idempotent_request.caller, idempotent_request.key)
        if not await connection.fetchval(TRY_LOCK, *caller_and_key):
            raise _in_progress()
        stored_response = await connection.fetchrow(FIND_RESPONSE, *caller_and_key)
        if stored_response is not None:
            return _restore_response(stored_response, idempotent_request.fingerprint)
        response = await create(connection)
        await _store_response(connection, idempotent_request, response)
        return response


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
    connection: Connection, idempotent_request: IdempotentRequest, response: Response
) -> None:
    """Store the response. Raises ProblemError (409) if another one is stored by now."""
    is_stored = await connection.fetchval(
        STORE_RESPONSE,
        idempotent_request.caller,
        idempotent_request.key,
        idempotent_request.fingerprint,
        response.status_code,
        json.dumps(response.headers.items()),
        bytes(response.body),
        idempotent_request.ttl,
    )
    if not is_stored:
        # Only if two requests held the lock, for example on both sides of a failover.
        raise _in_progress()
    await connection.execute(DELETE_EXPIRED)
