"""Conditional requests (RFC 9110, section 13)."""

from hashlib import blake2b
from typing import Annotated

from fastapi import Header, Response

from .errors import ProblemError

IfMatch = Annotated[str, Header(description="The ETag of the version that you read.")]
IfMatchIfGiven = Annotated[str | None, Header(alias="If-Match")]
MAY_BE_KNOWN = {
    "parameters": [{"name": "If-None-Match", "in": "header", "schema": {"type": "string"}}],
    "responses": {"304": {"description": "Not Modified"}},
}  # `openapi_extra` of an operation that answers with `tagged`


def entity_tag(body: bytes) -> str:
    """A strong entity tag: a digest of the representation."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def tagged(body: bytes, if_none_match: str | None = None) -> Response:
    """200 with the JSON `body` and its ETag, or 304 if the client has that version."""
    headers = {"ETag": entity_tag(body)}
    if if_none_match is not None and _lists(if_none_match.replace("W/", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def check_match(if_match: str | None, current: bytes) -> None:
    """Refuse (412) if If-Match is given and does not list the entity tag of `current`."""
    if if_match is not None and not _lists(if_match, entity_tag(current)):
        raise ProblemError(412, "It has changed since you read it.")


def _lists(header: str, tag: str) -> bool:
    return header.strip() == "*" or tag in map(str.strip, header.split(","))
