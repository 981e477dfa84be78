"""Authentication with bearer tokens (RFC 6750), if JWT_ISSUER is set.

See docs/authentication.md, and https://fastapi.tiangolo.com/advanced/security/oauth2-scopes/.
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from copy import copy
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Request, Security, params
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.routing import BaseRoute

from . import NAME
from .caller import ANONYMOUS, Caller, TokenRefusedError
from .dependencies import get_token_verifier
from .errors import ProblemError
from .observability.logs import request_context
from .settings import Settings

if TYPE_CHECKING:
    from .access_tokens import TokenVerifier

CHALLENGE = f'Bearer realm="{NAME}"'

bearer_token = HTTPBearer(scheme_name="bearer", bearerFormat="JWT", auto_error=False)


def require_scope(*scopes: str) -> params.Depends:
    """A dependency that lets only callers pass whose access token has all these scopes.

    For `dependencies=[require_scope("orders:write")]` of an operation or a router, or
    `caller: Annotated[Caller, require_scope("orders:write")]` in a signature. Without a scope, any
    valid token suffices.
    """
    dependency: params.Depends = Security(get_caller, scopes=scopes)
    return dependency


async def get_caller(
    request: Request,
    security_scopes: SecurityScopes,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer_token)],
) -> Caller:
    """Who sent the request, or ANONYMOUS if JWT_ISSUER is not set.

    Raises ProblemError: 401 without a valid token, 403 if the token does not have all scopes, 503
    if no key of the issuer is known yet.
    """
    verifier = await get_token_verifier(request)
    if verifier is None:
        return ANONYMOUS
    caller = await _authenticate(request, credentials, verifier)
    request.scope["user"] = caller
    request_context.get({})["subject"] = caller.subject
    if not caller.scopes.issuperset(security_scopes.scopes):
        scope = security_scopes.scope_str
        raise _refusal(
            403,
            f"The access token does not have the scope {scope}.",
            f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"',
        )
    return caller


def find_caller(request: Request) -> Caller | None:
    """Who sent the request, or None if its operation does not require an access token."""
    user = request.scope.get("user")
    # Starlette's AuthenticationMiddleware of a fork may set a user of another class.
    return user if isinstance(user, Caller) else None


def configure_router(router: APIRouter, settings: Settings) -> APIRouter:
    """The router itself, or without JWT_ISSUER a copy of it that does not call `get_caller`.

    Dependencies that do nothing would cost each request 18 µs
    (docs/decisions/0027-access-tokens.md).
    """
    if settings.jwt_issuer:
        return router
    open_router = copy(router)
    open_router.routes = [_without_caller(route) for route in router.routes]
    return open_router


def create_token_verifier(settings: Settings) -> "TokenVerifier | None":
    """The verifier of access tokens, or None without JWT_ISSUER: then PyJWT is not imported."""
    if not settings.jwt_issuer:
        return None
    from .access_tokens import TokenVerifier  # noqa: PLC0415 (needs the extra)

    return TokenVerifier(settings)


def refreshing_signing_keys(verifier: "TokenVerifier | None") -> AbstractAsyncContextManager[None]:
    """Fetch the keys of the issuer again and again, if there is a verifier."""
    return nullcontext() if verifier is None else verifier.signing_keys.refreshing()


async def _authenticate(
    request: Request, credentials: HTTPAuthorizationCredentials | None, verifier: "TokenVerifier"
) -> Caller:
    if len(request.headers.getlist("Authorization")) > 1:
        # A proxy in front of the service may have checked another one.
        raise _invalid_token("The request has more than one Authorization header.")
    if credentials is None:
        # RFC 6750, section 3.1: no error code for a client that did not try to authenticate.
        raise _refusal(401, "Send an access token as Authorization: Bearer.", CHALLENGE)
    try:
        return await verifier.verify(credentials.credentials)
    except TokenRefusedError as error:
        raise _invalid_token(str(error)) from error


def _invalid_token(detail: str) -> ProblemError:
    return _refusal(401, detail, f'{CHALLENGE}, error="invalid_token"')


def _refusal(status: int, detail: str, challenge: str) -> ProblemError:
    return ProblemError(status, detail, {"WWW-Authenticate": challenge})


def _without_caller(route: BaseRoute) -> BaseRoute:
    if not isinstance(route, APIRoute):
        return route
    open_route = copy(route)
    open_route.dependencies = [
        dependency for dependency in route.dependencies if dependency.dependency is not get_caller
    ]
    return open_route
