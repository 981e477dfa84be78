"""Verify access tokens, which are JSON Web Tokens with a signature of the issuer (RFC 9068).

This module imports PyJWT, which is installed only with the extra `auth`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import time

import jwt

from .caller import Caller, TokenRefusedError, read_scopes
from .errors import ProblemError
from .settings import Settings
from .signing_keys import (
    ALGORITHMS,
    MIN_FETCH_INTERVAL_SECONDS,
    SigningKeys,
    fetch_signing_keys,
)

LEEWAY_SECONDS = 30
"""By how much the clocks of the issuer and of this machine may differ."""

MAX_SUBJECT_LENGTH = 255
"""In characters (OpenID Connect Core, section 2). Each log line of the request contains it."""

MAX_VERIFIED_TOKENS = 1000
REASONS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "The access token has expired.",
    jwt.ImmatureSignatureError: "The access token is not valid yet.",
    jwt.InvalidAudienceError: "The access token is for another audience.",
    jwt.InvalidIssuerError: "The access token is of another issuer.",
}
"""What the holder of a token with a valid signature may know. Other errors have text of clients."""


@dataclass(frozen=True)
class _VerifiedToken:
    """A token that was valid with these keys, and is until `expires_at` (seconds since 1970)."""

    caller: Caller
    expires_at: float
    keys: Sequence[jwt.PyJWK]


class TokenVerifier:
    """Verifies the tokens of the issuer in the settings.

    To verify a token takes longer than everything else that FastAPI does with a request. So the
    result is kept until the token expires, or the keys are fetched again.
    """

    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        fetch = partial(fetch_signing_keys, settings.jwt_issuer, settings.jwt_jwks_url)
        self.signing_keys = SigningKeys(fetch)
        self._verified_tokens: dict[str, _VerifiedToken] = {}

    async def verify(self, token: str) -> Caller:
        """Who sent a request with this token.

        Raises TokenRefusedError, or ProblemError (503) if no key of the issuer is known yet.
        """
        verified_token = self._verified_tokens.get(token)
        if (
            verified_token is None
            or verified_token.keys is not self.signing_keys.current_keys
            or verified_token.expires_at <= time()
        ):
            verified_token = await self._verify(token)
            if len(self._verified_tokens) >= MAX_VERIFIED_TOKENS:
                oldest = next(iter(self._verified_tokens))
                del self._verified_tokens[oldest]
            self._verified_tokens[token] = verified_token
        return verified_token.caller

    async def _verify(self, token: str) -> _VerifiedToken:
        try:
            key = await self._find_key(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.PyJWTError as error:
            reason = REASONS.get(type(error), "The access token is not valid.")
            raise TokenRefusedError(reason) from error
        subject = claims["sub"]
        if not 0 < len(subject) <= MAX_SUBJECT_LENGTH or not subject.isprintable():
            raise TokenRefusedError("The access token has no valid subject.")
        caller = Caller(self._issuer, subject, read_scopes(claims), claims)
        expires_at = int(claims["exp"]) + LEEWAY_SECONDS
        return _VerifiedToken(caller, expires_at, self.signing_keys.current_keys)

    async def _find_key(self, token: str) -> jwt.PyJWK:
        """The key for the header of the token, which is not verified yet.

        Nothing else in the header is used: a token could name its own key there (`jwk`, `jku`,
        `x5c`, `x5u`). `jwt.decode()` checks that the algorithm is the one of the key.
        """
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise TokenRefusedError("The access token has an algorithm that is not accepted.")
        key = await self.signing_keys.find(algorithm, header.get("kid"))
        if key is not None:
            return key
        if self.signing_keys.current_keys:
            raise TokenRefusedError("The access token is signed with an unknown key.")
        raise ProblemError(
            503,
            "The keys of the issuer of access tokens are not available.",
            {"Retry-After": str(MIN_FETCH_INTERVAL_SECONDS)},
        )
