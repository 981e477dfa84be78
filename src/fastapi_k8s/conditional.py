"""Conditional requests: ETag, If-Match and If-None-Match (RFC 9110, section 13)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response

from .errors import ProblemError
from .openapi import problem_responses

IfMatch = Annotated[
    list[str],
    Header(alias="If-Match", description="The ETag of the version that you read, or `*`."),
]
"""A required If-Match: without it the response is 428 (RFC 6585, section 3)."""

OptionalIfMatch = Annotated[
    list[str] | None,
    Header(alias="If-Match", description="The ETag of the version that you read, or `*`."),
]
IfNoneMatch = Annotated[
    list[str] | None,
    Header(
        alias="If-None-Match",
        description="The ETags of versions that the current one must not be, or `*`.",
    ),
]

ETAG_HEADER = {
    "ETag": {
        "description": "The entity tag of this version.",
        "required": True,
        "schema": {"type": "string"},
    }
}
CONDITIONAL_GET_OPENAPI: dict[str, Any] = {
    "parameters": [
        {
            "name": "If-None-Match",
            "in": "header",
            "required": False,
            "schema": {"type": "array", "items": {"type": "string"}},
            "description": "The ETags of the versions that you have, or `*`.",
        },
        {
            "name": "If-Match",
            "in": "header",
            "required": False,
            "schema": {"type": "array", "items": {"type": "string"}},
            "description": "The ETags of the versions that you want, or `*`.",
        },
    ],
    "responses": {
        "304": {"description": "Not Modified", "headers": ETAG_HEADER},
        "412": problem_responses(412)[412],
    },
}
"""`openapi_extra` of an operation that reads its preconditions with `read_preconditions`.

A `Header` parameter would cost each read 10 µs (docs/decisions/0014-async-dependencies.md).
"""

CACHE_CONTROL = "private, no-cache"
"""A client may store a response with an ETag, and has to validate it before each use. Proxies must
not store the response, because it may be for this client only. Without this header, the default
`no-store` would apply.
"""

WEAK_PREFIX = "W/"
LIST_MEMBER = re.compile(r'(?:^|,)[ \t]*(\*|(?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?=,|$)')
"""A member of a list of entity tags. Between its quotes an entity tag may contain commas."""


@dataclass(frozen=True, slots=True)
class Preconditions:
    """The lines of If-Match and If-None-Match. An empty sequence means that the header is absent.

    Several lines of a header are one list (RFC 9110, section 5.3).
    """

    if_match: Sequence[str] = ()
    if_none_match: Sequence[str] = ()

    def check(self, current_body: bytes) -> None:
        """Raise ProblemError (412) if a precondition of a write to `current_body` is not met.

        The order is that of RFC 9110, section 13.2.2.
        """
        etag = entity_tag(current_body)
        self.check_if_match(etag)
        if self.is_not_modified(etag):
            raise ProblemError(412, "The current version matches If-None-Match.")

    def check_if_match(self, etag: str) -> None:
        """Raise ProblemError (412) if If-Match is present and does not list `etag`."""
        if not self.if_match:
            return
        tags = _entity_tags(self.if_match)
        # Strong comparison: a weak tag never matches. `*` is not a member of a list.
        if etag not in tags and set(tags) != {"*"}:
            raise ProblemError(412, "The current version does not match If-Match.")

    def is_not_modified(self, etag: str) -> bool:
        """Whether If-None-Match is present and lists `etag`."""
        if not self.if_none_match:
            return False
        tags = [tag.removeprefix(WEAK_PREFIX) for tag in _entity_tags(self.if_none_match)]
        return etag in tags or "*" in tags


NO_PRECONDITIONS = Preconditions()


def read_preconditions(request: Request) -> Preconditions:
    """The preconditions of a request, for a read. A write declares a dependency instead."""
    if_match = []
    if_none_match = []
    for name, value in request.scope["headers"]:
        if name == b"if-none-match":
            if_none_match.append(value.decode("latin-1"))
        elif name == b"if-match":
            if_match.append(value.decode("latin-1"))
    return Preconditions(if_match, if_none_match)


async def get_preconditions(
    if_match: OptionalIfMatch = None, if_none_match: IfNoneMatch = None
) -> Preconditions:
    """The preconditions of a write, none of them required."""
    return Preconditions(if_match or (), if_none_match or ())


async def get_preconditions_with_if_match(
    if_match: IfMatch, if_none_match: IfNoneMatch = None
) -> Preconditions:
    """The preconditions of a write that requires If-Match."""
    return Preconditions(if_match, if_none_match or ())


PreconditionsDep = Annotated[Preconditions, Depends(get_preconditions)]
RequiredPreconditionsDep = Annotated[Preconditions, Depends(get_preconditions_with_if_match)]


def entity_tag(body: bytes) -> str:
    """A strong entity tag: a digest of the representation `body`, in quotes."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def json_response_with_etag(
    body: bytes, status: int = 200, preconditions: Preconditions = NO_PRECONDITIONS
) -> Response:
    """A response with the JSON `body` and its ETag, or 304 if the client has that version.

    `preconditions` are those of a read. Raises ProblemError (412) if If-Match is not met.
    """
    etag = entity_tag(body)
    headers = {"ETag": etag, "Cache-Control": CACHE_CONTROL}
    preconditions.check_if_match(etag)
    if preconditions.is_not_modified(etag):
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, media_type="application/json")


def _entity_tags(lines: Sequence[str]) -> list[str]:
    """The entity tags of a header, weak ones with their prefix, and `*`."""
    return LIST_MEMBER.findall(",".join(lines))
