"""/docs of the image in Chromium, in a network without internet access."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from python_on_whales import Container, DockerClient

from tests.container import browse_docs
from tests.container.conftest import (
    HARDENING_OPTIONS,
    application_environment,
    command_succeeds,
    python_base_image,
)
from tests.docker_session import LABELS, SESSION_NAME
from tools.checkout import run_command
from tools.dev.servers import wait_until

PREFIX = "/shop"
DOCKERFILE = f"""
FROM {python_base_image()}
RUN apt-get update && \
    apt-get install -y --no-install-recommends chromium-driver nginx && \
    rm -rf /var/lib/apt/lists/*
COPY nginx.conf /etc/nginx/nginx.conf
COPY browse_docs.py /
"""
NGINX_CONFIGURATION = f"""
events {{}}
http {{
    server {{
        listen 8080;
        location {PREFIX}/ {{ proxy_pass http://api:8000/; }}
    }}
}}
"""
RunBrowser: TypeAlias = Callable[[str], AbstractContextManager[Container]]
CONNECT_TO_THE_INTERNET = "import socket; socket.create_connection(('1.1.1.1', 443), 5)"


@pytest.fixture(scope="module")
def browser_image(docker: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tag of an image with Chromium, chromedriver and nginx."""
    context = tmp_path_factory.mktemp("browser")
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "nginx.conf").write_text(NGINX_CONFIGURATION)
    shutil.copy(browse_docs.__file__, context)
    tag = f"{SESSION_NAME}-browser"
    docker.build(context, labels=LABELS, tags=tag, progress=False)
    return tag


@pytest.fixture
def offline_network(docker: DockerClient) -> Iterator[str]:
    """The name of a network whose containers can connect only to each other."""
    name = f"{SESSION_NAME}-offline"
    labels = [f"--label={key}={value}" for key, value in LABELS.items()]
    run_command(["docker", "network", "create", "--internal", *labels, name])
    yield name
    docker.network.remove(name)


@pytest.fixture
def run_browser(
    docker: DockerClient, image: str, browser_image: str, offline_network: str
) -> RunBrowser:
    """A context manager that runs the application, nginx in front of it, and chromedriver.

    It yields the container of chromedriver.
    """
    options: dict[str, Any] = {"detach": True, "labels": LABELS, "networks": [offline_network]}

    @contextmanager
    def run(root_path: str) -> Iterator[Container]:
        containers: list[Container] = []
        try:
            api = docker.run(
                image,
                envs={**application_environment(), "API_DOCS": "true", "ROOT_PATH": root_path},
                network_aliases=["api"],
                **HARDENING_OPTIONS,
                **options,
            )
            containers.append(api)
            wait_until(lambda: api.state.health.status == "healthy", 60, "the application")
            nginx = ["nginx", "-g", "daemon off;"]
            containers.append(
                docker.run(browser_image, nginx, network_aliases=["proxy"], **options)
            )
            browser = docker.run(browser_image, ["chromedriver", "--port=9515"], **options)
            containers.append(browser)
            yield browser
        finally:
            for container in containers:
                container.remove(force=True, volumes=True)

    return run


@pytest.mark.parametrize(
    ("root_path", "url"),
    [("", "http://api:8000/docs"), (PREFIX, f"http://proxy:8080{PREFIX}/docs")],
    ids=["directly", "behind a proxy with a prefix"],
)
def test_the_page_shows_and_executes_operations_without_internet_access(
    run_browser: RunBrowser, root_path: str, url: str
) -> None:
    with run_browser(root_path) as browser:
        assert not command_succeeds(browser, ["python", "-c", CONNECT_TO_THE_INTERNET])
        program = ["python", f"/{Path(browse_docs.__file__).name}", url, "health-get_health"]
        visit = json.loads(str(browser.execute(program)))
    assert {"/health", "/ready", "/version", "/metrics"} <= set(visit["operations"])
    assert visit["status"] == ["200"]
    assert json.loads(visit["body"][0]) == {"status": "ok"}
    # Violations of the Content-Security-Policy are in the console.
    assert visit["console"] == []
    assert visit["failures"] == []
    origin = url.removesuffix("/docs")
    assert {f"{origin}/docs", f"{origin}/openapi.json", f"{origin}/health"} <= set(
        visit["requests"]
    )
    for requested_url in visit["requests"]:
        assert requested_url.startswith((f"{origin}/", "data:"))
