"""Conditional requests: ETag, If-Match and If-None-Match (RFC 9110, section 13)."""

from hashlib import blake2b
from typing import Annotated, Any

from fastapi import Header, Response

IfMatch = Annotated[
    str, Header(alias="If-Match", description="The ETag of the version that you read, or `*`.")
]
"""A required If-Match: without it the response is 428 (RFC 6585, section 3)."""

OptionalIfMatch = Annotated[
    str | None,
    Header(alias="If-Match", description="The ETag of the version that you read, or `*`."),
]

ETAG_HEADER = {
    "ETag": {"description": "The entity tag of this version.", "schema": {"type": "string"}}
}
CONDITIONAL_GET_OPENAPI: dict[str, Any] = {
    "parameters": [
        {
            "name": "If-None-Match",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "The ETags of the versions that you have, or `*`.",
        }
    ],
    "responses": {"304": {"description": "Not Modified", "headers": ETAG_HEADER}},
}
"""`openapi_extra` of an operation that reads If-None-Match from `request.headers`.

A `Header` parameter would cost each read 10 µs (docs/decisions/0014-async-dependencies.md).
"""


def entity_tag(body: bytes) -> str:
    """A strong entity tag: a digest of the representation `body`, in quotes."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def json_response_with_etag(
    body: bytes, status: int = 200, if_none_match: str | None = None
) -> Response:
    """A response with the JSON `body` and its ETag, or 304 if the client has that version."""
    etag = entity_tag(body)
    headers = {"ETag": etag}
    # If-None-Match compares weakly (RFC 9110, section 13.1.2).
    if if_none_match is not None and _matches(if_none_match.replace("W/", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, media_type="application/json")


def satisfies_if_match(if_match: str | None, current_body: bytes) -> bool:
    """Whether If-Match is absent or lists the entity tag of `current_body`."""
    return if_match is None or _matches(if_match, entity_tag(current_body))


def _matches(header: str, etag: str) -> bool:
    """Whether a list of entity tags contains `etag`, or is `*`."""
    if header.strip() == "*":
        return True
    return etag in [tag.strip() for tag in header.split(",")]
