"""Who sent a request, according to its access token."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any


@dataclass(frozen=True)
class Caller:
    """A user or a service, as the issuer of its access token describes it.

    `subject` identifies the caller at this issuer, and is empty while authentication is off.
    `claims` are all claims of the token, such as `email`. Requests with the same token share them.
    """

    issuer: str
    subject: str
    scopes: frozenset[str]
    claims: Mapping[str, Any]

    def digest(self) -> str:
        """A digest that is the same for all tokens of the caller, and for no other caller."""
        # A URL contains no line feed, so no other pair of issuer and subject gives this text.
        return sha256(f"{self.issuer}\n{self.subject}".encode()).hexdigest()


class TokenRefusedError(Exception):
    """An access token is not valid. The message is for the client."""


ANONYMOUS = Caller(issuer="", subject="", scopes=frozenset(), claims={})


def read_scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """The scopes of a token: words in `scope` (RFC 9068), or words or a list in `scp`.

    Microsoft Entra ID sends `scp` as words, and Okta as a list.
    """
    scopes: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            scopes.update(value.split())
        elif isinstance(value, list):
            scopes.update(scope for scope in value if isinstance(scope, str))
    return frozenset(scopes)
