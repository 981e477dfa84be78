"""Hooks for Schemathesis: a further check, and a filter for failures that are not defects.

Schemathesis imports this module, because tools/fuzz/schemathesis.toml names it.
"""

import re
from itertools import count
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData

from fastapi_k8s.security_headers import DEFAULT_HEADERS

IF_MATCH = "If-Match"
KEY = "Idempotency-Key"
KEY_WAS_USED = "This Idempotency-Key was used for another request."
VALID_KEY = re.compile(r'("?)([!#-\[\]-~]{1,200})\1')
"""Almost all of the valid keys, with and without quotes."""

numbers = count()


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Remove the response `default`. With it, every status would count as documented."""
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("default", None)


@schemathesis.hook
def before_call(
    _: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Make valid keys unique, and let every second precondition be met.

    Schemathesis sends the same key with different bodies, and entity tags that it makes up. The
    service would refuse almost all of these requests before it reads the rest.
    """
    number = next(numbers)
    key = VALID_KEY.fullmatch(case.headers.get(KEY, ""))
    if key is not None:
        case.headers[KEY] = f"{key[1]}{key[2]}-{number}{key[1]}"
    if IF_MATCH in case.headers and number % 2 == 0:
        case.headers[IF_MATCH] = "*"


@schemathesis.hook
def filter_failure(
    _: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case[Any],
    response: schemathesis.Response,
) -> bool:
    """Whether to report a failure. A 422 for the key of an earlier request is not a defect."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    return KEY not in case.headers or response.json()["detail"] != KEY_WAS_USED


@schemathesis.check
def security_headers(
    _: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Every response has each of the security headers exactly once."""
    for name, _value in DEFAULT_HEADERS:
        values = response.headers.get(name.decode(), [])
        assert len(values) == 1, f"{name.decode()} is sent {len(values)} times"
