"""Dependencies give path operations what the lifespan yields, and tests can override them.

See https://fastapi.tiangolo.com/advanced/testing-dependencies/ for overrides.
"""

from fastapi_k8s.dependencies import (
    CacheDep,
    DatabaseDep,
    ReadinessDep,
    SettingsDep,
    get_readiness,
    get_settings,
)
from fastapi_k8s.main import create_app
from fastapi_k8s.readiness import ReadinessReport
from tests.conftest import MakeSettings, Serve


async def test_a_path_operation_gets_what_the_lifespan_yields(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings())

    @app.get("/resources")
    async def get_resources(
        settings: SettingsDep, database: DatabaseDep, cache: CacheDep, readiness: ReadinessDep
    ) -> list[str]:
        resources = [settings, database, cache, readiness]
        return [type(resource).__name__ for resource in resources]

    async with serve(app) as client:
        response = await client.get("/resources")
    assert response.json() == ["Settings", "Database", "Cache", "Readiness"]


async def test_settings_can_be_overridden(make_settings: MakeSettings, serve: Serve) -> None:
    app = create_app(make_settings(git_sha="original"))
    overriding_settings = make_settings(git_sha="overridden")
    app.dependency_overrides[get_settings] = lambda: overriding_settings
    async with serve(app) as client:
        response = await client.get("/version")
    assert response.json()["commit"] == "overridden"


async def test_the_readiness_checks_can_be_overridden(
    make_settings: MakeSettings, serve: Serve
) -> None:
    """Without the override /ready is 503, because the database is unreachable."""

    class AlwaysReady:
        async def report(self) -> ReadinessReport:
            return ReadinessReport(status="ready", checks={"database": "overridden"})

    app = create_app(make_settings())
    app.dependency_overrides[get_readiness] = AlwaysReady
    async with serve(app) as client:
        response = await client.get("/ready")
    assert response.status_code == 200
    assert response.json()["checks"] == {"database": "overridden"}
