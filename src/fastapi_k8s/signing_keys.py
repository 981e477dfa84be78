"""The public keys with which an issuer signs its access tokens (JSON Web Key Set, RFC 7517).

PyJWT's own `PyJWKClient` blocks the event loop, and has no keys while the issuer is unavailable
(docs/decisions/0027-access-tokens.md).
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from jwt import PyJWK

from . import NAME

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""Signatures with public keys. With HS256, anybody with the public key could sign tokens."""

REFRESH_INTERVAL_SECONDS = 300
"""A key that the issuer has revoked is accepted for at most this long."""

MIN_FETCH_INTERVAL_SECONDS = 10
"""Otherwise tokens with invented key ids would make the service flood the issuer."""

FETCH_WAIT_SECONDS = 3
"""How long a request waits for the keys."""

SOCKET_TIMEOUT_SECONDS = 3
MAX_DOCUMENT_BYTES = 1_048_576
"""Key sets have a few kilobytes."""


class SigningKeys:
    """The keys of an issuer, which a task fetches again and again.

    `current_keys` is empty until the first fetch succeeds, and is replaced as a whole by each
    fetch. If the issuer is unavailable, the keys stay as they are.
    """

    def __init__(self, fetch: Callable[[], Sequence[PyJWK]]) -> None:
        self.current_keys: Sequence[PyJWK] = ()
        self._fetch = fetch
        self._attempt: asyncio.Task[None] | None = None
        self._next_attempt_at = 0.0
        self._last_attempt_failed = False

    async def find(self, algorithm: str, key_id: str | None) -> PyJWK | None:
        """The key of a token. Without a key id, it is the only key with this algorithm.

        None if several different keys are possible. A key that is listed twice is one key.

        An unknown key may be new. So it is looked up in the keys that the issuer has now, unless
        they were fetched in the last MIN_FETCH_INTERVAL_SECONDS.
        """
        key = self._select(algorithm, key_id)
        if key is None:
            await self._refresh(FETCH_WAIT_SECONDS)
            key = self._select(algorithm, key_id)
        return key

    @asynccontextmanager
    async def refreshing(self) -> AsyncIterator[None]:
        """Fetch the keys now, and every REFRESH_INTERVAL_SECONDS."""
        task = asyncio.create_task(self._refresh_periodically())
        try:
            yield
        finally:
            task.cancel()

    def _select(self, algorithm: str, key_id: str | None) -> PyJWK | None:
        keys = [
            key
            for key in self.current_keys
            if key.algorithm_name == algorithm and key_id in (None, key.key_id)
        ]
        if not keys or any(key.key != keys[0].key for key in keys):
            return None
        return keys[0]

    async def _refresh_periodically(self) -> None:
        while True:
            await self._refresh()
            # Without keys, no request with a token can succeed. With old ones, a revoked key would
            # be accepted for another REFRESH_INTERVAL_SECONDS.
            if self._last_attempt_failed:
                await asyncio.sleep(MIN_FETCH_INTERVAL_SECONDS)
            else:
                await asyncio.sleep(REFRESH_INTERVAL_SECONDS)

    async def _refresh(self, wait_seconds: float | None = None) -> None:
        """Fetch the keys, unless they were fetched just now. All callers share one attempt.

        Returns after `wait_seconds`, even if the attempt has not ended.
        """
        if self._attempt is None or self._attempt.done():
            if monotonic() < self._next_attempt_at:
                return
            self._next_attempt_at = monotonic() + MIN_FETCH_INTERVAL_SECONDS
            self._attempt = asyncio.create_task(self._try_to_fetch())
        # Unlike wait_for(), this does not cancel the attempt if the request is cancelled.
        await asyncio.wait([self._attempt], timeout=wait_seconds)

    async def _try_to_fetch(self) -> None:
        try:
            # The thread also parses the keys, and resolves the name of the issuer.
            self.current_keys = await asyncio.to_thread(self._fetch)
            self._last_attempt_failed = False
        except Exception as error:  # noqa: BLE001 (whatever the issuer sends, the keys stay)
            self._last_attempt_failed = True
            fields = {"error": f"{type(error).__name__}: {error}"}
            logger.warning("signing keys cannot be fetched", extra=fields)


def fetch_signing_keys(issuer: str, jwks_url: str) -> Sequence[PyJWK]:
    """The keys for ALGORITHMS from `jwks_url`, or if it is empty from where the issuer has them.

    Raises an exception of any kind if there are none. It blocks.
    """
    document = _fetch_json(jwks_url or _discover_jwks_url(issuer))
    keys = [key for key in _parse_keys(document.get("keys", [])) if _is_signing_key(key)]
    if not keys:
        raise ValueError(f"no usable key is for one of the algorithms {', '.join(ALGORITHMS)}")
    return keys


def _parse_keys(jwks: Iterable[dict[str, Any]]) -> Iterable[PyJWK]:
    """The keys that PyJWT can use. RFC 7517 (section 5) recommends ignoring all others.

    PyJWT's own `PyJWKSet` fails as a whole if a member of one key has the wrong type.
    """
    for jwk in jwks:
        try:
            key = PyJWK(jwk)
        except Exception:  # noqa: BLE001, S112 (whatever is wrong with one key, others are used)
            continue
        yield key


def _is_signing_key(key: PyJWK) -> bool:
    return (
        key.algorithm_name in ALGORITHMS
        and key.public_key_use in (None, "sig")
        # A private key, which an issuer may publish by mistake, has no such method.
        and hasattr(key.key, "verify")
    )


def _discover_jwks_url(issuer: str) -> str:
    """See https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig."""
    document = _fetch_json(f"{issuer.removesuffix('/')}/.well-known/openid-configuration")
    if document["issuer"] != issuer:
        raise ValueError(f"JWT_ISSUER is not the issuer {document['issuer']!r} that it names")
    jwks_url = str(document["jwks_uri"])
    # Otherwise the document could make the service read a file, or fetch the keys without TLS.
    if urlsplit(jwks_url).scheme not in ("https", urlsplit(issuer).scheme):
        raise ValueError(f"the issuer has its keys at {jwks_url!r}, without TLS")
    return jwks_url


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Let a redirect be an error."""


def _fetch_json(url: str) -> dict[str, Any]:
    """A JSON object. Raises OSError, ValueError or TypeError."""
    # Some content delivery networks refuse the name that urllib sends otherwise.
    headers = {"Accept": "application/json", "User-Agent": NAME}
    request = Request(url, headers=headers)  # noqa: S310 (the scheme is checked)
    opener = build_opener(_NoRedirects)
    with opener.open(request, timeout=SOCKET_TIMEOUT_SECONDS) as response:
        body = response.read(MAX_DOCUMENT_BYTES + 1)
    if len(body) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"{url} has more than {MAX_DOCUMENT_BYTES} bytes")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise TypeError(f"{url} is not a JSON object")
    return document
