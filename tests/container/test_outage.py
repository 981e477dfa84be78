"""PostgreSQL or Redis stops and starts again while the application's container keeps running."""

from uuid import uuid4

import httpx
from python_on_whales import Container, DockerClient

from tests.container.conftest import (
    RunApplication,
    application_environment,
    migrate,
    returns_200,
    run_postgres,
    run_redis,
)
from tools.dev.servers import wait_until


def test_while_postgresql_is_down_responses_are_503_and_recovery_needs_no_restart(
    docker: DockerClient, image: str, network: str, run_application: RunApplication
) -> None:
    name = f"postgres-{uuid4().hex[:8]}"
    environment = application_environment(postgres=name, redis="none")
    with run_postgres(docker, network, name) as postgres:
        migrate(docker, image, network, postgres=name)
        with run_application(environment) as application:

            def all_return(status: int) -> bool:
                paths = [
                    "/ready",
                    "/items",  # example
                ]
                responses = [application.client.get(path) for path in paths]
                return {response.status_code for response in responses} == {status}

            create_response = application.client.post("/items", json={"name": "Lamp"})  # example
            started_at = application.container.state.started_at
            postgres.stop(time=10)
            wait_until(lambda: all_return(503), 10, "status 503")
            assert returns_200(application.client, "/health")
            postgres.start()
            wait_until(lambda: all_return(200), 60, "status 200")
            assert returns_200(application.client, create_response.headers["Location"])  # example
            assert application.container.state.started_at == started_at


def test_while_redis_is_down_responses_are_still_200(
    docker: DockerClient, network: str, run_application: RunApplication, postgres: Container
) -> None:
    name = f"redis-{uuid4().hex[:8]}"
    environment = application_environment(redis=name)
    with run_redis(docker, network, name) as redis, run_application(environment) as application:
        client = application.client
        path = "/ready"
        path = client.post("/items", json={"name": "Lamp"}).headers["Location"]  # example

        def get_cache_status() -> str:
            """Return the status of the cache. Fails unless the application serves requests."""
            ready = client.get("/ready")
            assert ready.status_code == httpx.codes.OK
            assert client.get(path).status_code == httpx.codes.OK
            return str(ready.json()["checks"]["cache"])

        assert get_cache_status() == "ok"
        redis.stop(time=1)
        wait_until(lambda: get_cache_status() == "unreachable", 30, "the cache to be unreachable")
        redis.start()
        wait_until(lambda: get_cache_status() == "ok", 30, "the cache to be reachable again")
