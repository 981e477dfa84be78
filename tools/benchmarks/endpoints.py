"""Cases that every service has: health, version, and bare FastAPI for comparison."""

from collections.abc import Iterator
from contextlib import contextmanager

from .containers import SERVICE, Container, Image, run_containers
from .measurement import Case, Comparison

BARE = "tools.benchmarks.bare:create_app()"
ADD_ONS = "tools.benchmarks.addons:create_app()"

BARE_HEALTH = "bare FastAPI: `GET /health`"


@contextmanager
def endpoint_cases(image: Image, database_url: str, service: Container) -> Iterator[list[Case]]:
    """The cases, with their servers running. `service` has to run already."""
    bare = image.container(*SERVICE, BARE, DATABASE_URL=database_url)
    add_ons = image.container(*SERVICE, ADD_ONS, DATABASE_URL=database_url)
    comparison = Comparison(BARE_HEALTH)
    with run_containers(bare, add_ons):
        yield [
            Case(BARE_HEALTH, bare, "/health"),
            Case("bare FastAPI with add-ons: `GET /health`", add_ons, "/health", comparison),
            Case("`GET /health`", service, "/health", Comparison(BARE_HEALTH, target=0.88)),
            Case("`GET /version`", service, "/version", comparison),
        ]
