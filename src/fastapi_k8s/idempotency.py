"""POST that is safe to retry (draft-ietf-httpapi-idempotency-key-header)."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import sha256
from typing import Annotated

from fastapi import Header, Request, Response

from .database import Connection
from .errors import ProblemError

IdempotencyKey = Annotated[
    str | None,
    Header(pattern=r"^[\x21-\x7e]{1,255}$", description="A retry with it creates nothing new."),
]

# To wait for a twin would hold a connection for each of its retries: they are turned away.
LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))"
FIND = "SELECT fingerprint, answer FROM idempotency_keys WHERE key = $1 AND expires_at > now()"
STORE = """INSERT INTO idempotency_keys VALUES ($1, $2, $3, now() + $4)
ON CONFLICT (key) DO UPDATE SET fingerprint = $2, answer = $3, expires_at = now() + $4"""
# A few with each new key: they go faster than they come, and nobody waits for anybody.
PURGE = """DELETE FROM idempotency_keys WHERE key IN (SELECT key FROM idempotency_keys
    WHERE expires_at < now() LIMIT 10 FOR UPDATE SKIP LOCKED)"""


async def once(
    request: Request, key: str | None, create: Callable[[Connection], Awaitable[Response]]
) -> Response:
    """Run `create` in a transaction, or return the answer that it gave to `key` before."""
    async with request.state.database.transaction() as connection:
        if key is None:
            return await create(connection)
        if not await connection.fetchval(LOCK, key):
            raise ProblemError(409, "A twin of this request is running.", {"Retry-After": "1"})
        line = f"{request.method} {request.url.path}\n"
        fingerprint = sha256(line.encode() + await request.body()).digest()
        if stored := await connection.fetchrow(FIND, key):
            if stored["fingerprint"] != fingerprint:
                raise ProblemError(422, "This Idempotency-Key was used for another request.")
            return Response(*json.loads(stored["answer"]))
        response = await create(connection)
        body = bytes(response.body).decode()
        answer = json.dumps([body, response.status_code, dict(response.headers)])
        ttl = timedelta(seconds=request.state.settings.idempotency_ttl)
        await connection.execute(STORE, key, fingerprint, answer, ttl)
        await connection.execute(PURGE)
        return response
