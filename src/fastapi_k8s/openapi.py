"""Additions to the OpenAPI document that FastAPI generates."""

from typing import Any, TypeAlias

from fastapi import FastAPI

from .errors import PROBLEM_MEDIA_TYPE, Problem, reason_phrase

Responses: TypeAlias = dict[int | str, dict[str, Any]]
"""The type of the parameter `responses` of FastAPI's routes and routers."""

SCHEMA_REFERENCE = "#/components/schemas/{model}"
PROBLEM_CONTENT = {
    PROBLEM_MEDIA_TYPE: {"schema": {"$ref": SCHEMA_REFERENCE.format(model=Problem.__name__)}}
}
DEFAULT_ERROR_RESPONSE: Responses = {
    "default": {"description": "Any other error", "content": PROBLEM_CONTENT}
}
RETRYABLE_STATUSES = {409, 503}
"""Sent with Retry-After.

409: a duplicate is in progress. 503: the database is unavailable, or the request took too long.
"""

CHALLENGE_STATUSES = {401, 403}
"""Sent with WWW-Authenticate."""

RETRY_AFTER_HEADER = {
    "description": "Seconds to wait before a retry.",
    "required": True,
    "schema": {"type": "integer"},
}
AUTHENTICATION_STATUSES = (401, 403, 503)
"""The responses of an operation that requires an access token.

503: no key of the issuer is known yet.
"""

WWW_AUTHENTICATE_HEADER = {
    "description": "Why the access token does not suffice (RFC 6750).",
    "required": True,
    "schema": {"type": "string"},
}
REQUEST_ID_HEADER = {
    "description": "The id of the request, as in its log lines.",
    "required": True,
    "schema": {"type": "string"},
}


def problem_responses(*statuses: int) -> Responses:
    """Error responses of an operation, for the parameter `responses` of its route."""
    responses: Responses = {}
    for status in statuses:
        responses[status] = {"description": reason_phrase(status), "content": PROBLEM_CONTENT}
        if status in CHALLENGE_STATUSES:
            responses[status]["headers"] = {"WWW-Authenticate": WWW_AUTHENTICATE_HEADER}
        if status in RETRYABLE_STATUSES:
            responses[status]["headers"] = {"Retry-After": RETRY_AFTER_HEADER}
    return responses


def complete_openapi(app: FastAPI) -> None:
    """Complete the document of `app`.

    Add the component `Problem`, the header X-Request-ID and the responses of operations that
    require an access token, and correct optional parameters.

    See https://fastapi.tiangolo.com/how-to/extending-openapi/.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        # FastAPI caches the document, so the additions may run again, which changes nothing.
        document = generate()
        _add_problem_schema(document)
        _add_authentication_responses(document)
        _add_request_id_header(document)
        _remove_null_from_parameters(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _add_problem_schema(document: dict[str, Any]) -> None:
    schema = Problem.model_json_schema(ref_template=SCHEMA_REFERENCE, mode="serialization")
    schemas = document["components"].setdefault("schemas", {})
    schemas.update(schema.pop("$defs"))
    schemas[Problem.__name__] = schema


def _add_authentication_responses(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for operation in operations.values():
            if "security" in operation:
                for status, response in problem_responses(*AUTHENTICATION_STATUSES).items():
                    operation["responses"].setdefault(str(status), response)


def _add_request_id_header(document: dict[str, Any]) -> None:
    document["components"]["headers"] = {"X-Request-ID": REQUEST_ID_HEADER}
    for operations in document["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                headers = response.setdefault("headers", {})
                headers["X-Request-ID"] = {"$ref": "#/components/headers/X-Request-ID"}


def _remove_null_from_parameters(document: dict[str, Any]) -> None:
    """Let the schema of an optional parameter be that of its value.

    FastAPI describes a parameter that may be absent as one that may be null. A client would send
    the text `null`.
    """
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                # A parameter in `openapi_extra` can have `$ref` or `content` instead.
                schema = parameter.get("schema", {})
                types = [each for each in schema.pop("anyOf", []) if each != {"type": "null"}]
                if len(types) > 1:
                    schema["anyOf"] = types
                elif types:
                    schema.update(types[0])
