"""POST that is safe to retry: one answer per Idempotency-Key, stored with what it created.

The header is that of draft-ietf-httpapi-idempotency-key-header.
"""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import sha256
from typing import Annotated

from fastapi import Header, Request, Response

from .database import Connection, Database
from .errors import ProblemError

IdempotencyKey = Annotated[
    str | None,
    Header(pattern=r"^[\x21-\x7e]{1,255}$", description="A retry with it creates nothing new."),
]

# To wait for a twin would hold a connection for each of its retries: they are turned away.
LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))"
FIND = """
SELECT fingerprint, status, headers, body FROM idempotency_keys
WHERE key = $1 AND expires_at > now()
"""
STORE = """
INSERT INTO idempotency_keys (key, fingerprint, status, headers, body, expires_at)
VALUES ($1, $2, $3, $4, $5, now() + $6)
ON CONFLICT (key) DO UPDATE SET fingerprint = $2, status = $3, headers = $4, body = $5,
    expires_at = excluded.expires_at
"""
# A few with each new key: they go faster than they come, and nobody waits for anybody.
PURGE = """
DELETE FROM idempotency_keys WHERE key IN (
    SELECT key FROM idempotency_keys WHERE expires_at < now() LIMIT 10 FOR UPDATE SKIP LOCKED
)
"""


async def once(
    request: Request, key: str | None, create: Callable[[Connection], Awaitable[Response]]
) -> Response:
    """Run `create` in a transaction; if it has run with `key` before, return its answer again.

    Refuses a key whose twin is still running (409) or that came with another request (422). If
    `create` raises, nothing is stored.
    """
    database: Database = request.state.database
    async with database.transaction() as connection:
        if key is None:
            return await create(connection)
        if not await connection.fetchval(LOCK, key):
            detail = "A request with this Idempotency-Key is running. Try again."
            raise ProblemError(409, detail, {"Retry-After": "1"})
        line = f"{request.method} {request.url.path}\n"
        fingerprint = sha256(line.encode() + await request.body()).digest()
        if stored := await connection.fetchrow(FIND, key):
            if stored["fingerprint"] != fingerprint:
                detail = "This Idempotency-Key was used for another request."
                raise ProblemError(422, detail)
            return Response(stored["body"], stored["status"], json.loads(stored["headers"]))
        answer = await create(connection)
        headers = json.dumps(dict(answer.headers))
        ttl = timedelta(seconds=request.state.settings.idempotency_ttl)
        await connection.execute(
            STORE, key, fingerprint, answer.status_code, headers, answer.body, ttl
        )
        await connection.execute(PURGE)
        return answer
