"""Match a request to the routes of the application, for its methods and its path template."""

from collections.abc import Iterator, Sequence

from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

Routes = Sequence[BaseRoute]


def find_routes(routes: Routes, scope: Scope) -> Iterator[tuple[Match, RouteContext]]:
    """The routes whose path matches: `Match.FULL` if the method matches too, else PARTIAL."""
    # A mounted application has changed the root_path.
    scope = {**scope, "root_path": scope.get("app_root_path", scope["root_path"])}
    for route in iter_route_contexts(routes):
        match, _ = route.matches(scope)
        if match is not Match.NONE:
            yield match, route


def allowed_methods(routes: Routes, scope: Scope) -> set[str]:
    """All methods that the path supports (RFC 9110, section 15.5.6).

    Empty if the path belongs to a mounted application, which has its own routes.
    """
    methods: set[str] = set()
    for _, route in find_routes(routes, scope):
        methods.update(route.methods or ())
    if "GET" in methods:
        methods.add("HEAD")
    return methods


def serve_head_as_get(routes: Routes, scope: Scope) -> Scope:
    """A copy of the scope of a HEAD request with the method GET, unless a route accepts HEAD.

    FastAPI, unlike Starlette, does not add HEAD to the routes that declare GET. The server keeps
    the original scope and sends no body.
    """
    if _accepts_head(routes, scope):
        return scope
    return {**scope, "method": "GET"}


def _accepts_head(routes: Routes, scope: Scope) -> bool:
    """Whether a route declares HEAD, or a mounted application comes before all routes for GET."""
    matches = list(find_routes(routes, scope))
    if any("HEAD" in (route.methods or ()) for _, route in matches):
        return True
    for match, route in matches:
        if match is Match.FULL:
            return True
        if "GET" in (route.methods or ()):
            return False
    return False


class PathTemplates:
    """The path templates of the routes, such as `/things/{thing_id}`.

    `scope["route"]` does not suffice: its path lacks the prefix of `include_router()`, and routes
    of Starlette, such as /docs, are not in the scope.
    """

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        templates: dict[int, set[str]] = {}
        for route in iter_route_contexts(routes):
            endpoint = route.endpoint or getattr(route, "app", None)
            templates.setdefault(id(endpoint), set()).add(_template(route))
        # Matching costs 5 µs per route, so only an endpoint with several paths needs it.
        self._by_endpoint = {
            endpoint: paths.pop() for endpoint, paths in templates.items() if len(paths) == 1
        }

    def find(self, scope: Scope) -> str | None:
        """The template of the route that handles the request, or None if no route matches.

        For a request to a mounted application it is the path of the mount.
        """
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return None
        template = self._by_endpoint.get(id(endpoint))
        if template is not None:
            return template
        matches = list(find_routes(self._routes, scope))
        # Like the router: the first route with the method, otherwise the first with the path.
        matches.sort(key=lambda match: match[0] is not Match.FULL)
        return _template(matches[0][1]) if matches else None


def _template(route: RouteContext) -> str:
    return route.path or "/"
