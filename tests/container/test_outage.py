"""PostgreSQL or Redis stops and comes back, and the service's container stays."""

from uuid import uuid4

from python_on_whales import DockerClient

from tests.container.conftest import (
    Serve,
    answers,
    migrate,
    postgres_container,
    redis_container,
    settings,
)
from tools.dev.servers import wait_until


def test_without_postgresql_503_and_with_it_again_200_without_a_restart(
    docker: DockerClient, image: str, network: str, serve: Serve
) -> None:
    name = f"postgres-{uuid4().hex[:8]}"
    with postgres_container(docker, network, name) as postgres:
        migrate(docker, image, network, postgres=name)
        with serve(settings(postgres=name, redis="none")) as service:

            def all_are(status: int) -> bool:
                paths = [
                    "/ready",
                    "/items",  # example
                ]
                return all(service.client.get(path).status_code == status for path in paths)

            created = service.client.post("/items", json={"name": "Lamp"})  # example
            started = service.container.state.started_at
            postgres.stop(time=10)
            wait_until(lambda: all_are(503), 10, "503")
            assert answers(service.client, "/health")
            postgres.start()
            wait_until(lambda: all_are(200), 60, "200")
            assert answers(service.client, created.headers["Location"])  # example
            assert service.container.state.started_at == started


def test_without_redis_200_all_along(
    docker: DockerClient, network: str, serve: Serve, postgres: object
) -> None:
    name = f"redis-{uuid4().hex[:8]}"
    with redis_container(docker, network, name) as redis, serve(settings(redis=name)) as service:
        path = "/ready"
        path = service.client.post("/items", json={"name": "Lamp"}).headers["Location"]  # example

        def cache() -> str:
            """The state of the cache, while the service answers and is ready."""
            ready = service.client.get("/ready")
            assert (service.client.get(path).status_code, ready.status_code) == (200, 200)
            return str(ready.json()["checks"]["cache"])

        assert cache() == "ok"
        redis.stop(time=1)
        wait_until(lambda: cache() == "unreachable", 30, "the cache's absence")
        redis.start()
        wait_until(lambda: cache() == "ok", 30, "the cache's return")
