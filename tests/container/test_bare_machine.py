"""The first command of the README on a machine with make and a Python that cannot create a venv."""

import pytest
from python_on_whales import Container, DockerClient

from tests.container.conftest import command_succeeds, python_base_image
from tests.docker_session import LABELS, SESSION_NAME
from tools.checkout import copy_checkout
from tools.dev.servers import wait_until

# As on Debian with python3-pip and without python3-venv, Python has pip, and no ensurepip. The
# variables are for a network whose proxy signs with its own certificate authority.
DOCKERFILE = f"""FROM {python_base_image()}
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt \\
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
RUN apt-get update && \\
    apt-get install -y --no-install-recommends make procps && \\
    rm -rf /usr/local/lib/python3.*/ensurepip && \\
    useradd --create-home developer
COPY project /root/project
COPY --chown=developer project /home/developer/project
"""

REQUEST_READINESS = """
import urllib.request
urllib.request.urlopen("http://127.0.0.1:8000/ready")
"""

INSTALL_UV_AGAIN_IN_THE_ENVIRONMENT = """
set -e
if python3 -m venv /tmp/environment >/dev/null; then exit 1; fi
mv .uv /tmp/uv
/tmp/uv/environment/bin/uv run --no-sync make .uv/bin/uv
.uv/bin/uv --version
"""
"""`uv run`, which runs the tests, puts a Python without pip in front of the PATH."""


@pytest.fixture(scope="module")
def machine(docker: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tag of an image with the project, but without uv and its packages."""
    context = tmp_path_factory.mktemp("machine")
    copy_checkout(context / "project")
    (context / "Dockerfile").write_text(DOCKERFILE)
    tag = f"{SESSION_NAME}-machine"
    docker.build(context, tags=tag, labels=LABELS, progress=False)
    return tag


@pytest.mark.timeout(600)  # the packages are downloaded without a cache
@pytest.mark.parametrize(("user", "home"), [("root", "/root"), ("developer", "/home/developer")])
def test_make_run_installs_everything_and_serves(
    docker: DockerClient, machine: str, user: str, home: str
) -> None:
    container = docker.run(
        machine,
        ["make", "run"],
        detach=True,
        labels=LABELS,
        user=user,
        workdir=f"{home}/project",
    )
    try:
        wait_until(lambda: is_ready(container), 500, "the readiness of the API")
        script = ["sh", "-c", INSTALL_UV_AGAIN_IN_THE_ENVIRONMENT]
        output = str(container.execute(script, user=user, workdir=f"{home}/project"))
        assert output.splitlines()[-1].startswith("uv ")
    finally:
        container.remove(force=True, volumes=True)


def is_ready(container: Container) -> bool:
    """Whether the API in the container is ready. Fails if `make run` has ended."""
    assert container.state.running, container.logs()
    return command_succeeds(container, ["python3", "-c", REQUEST_READINESS])
