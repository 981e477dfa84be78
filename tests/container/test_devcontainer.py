"""The dev container, as its user: what devcontainer.json says, run by Docker Compose alone."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from python_on_whales import DockerClient

from tests.checkout import PROJECT, copy_checkout, output
from tests.container.test_compose import Stack, stack
from tools.dev.servers import wait_until

GIVEN: dict[str, Any] = json.loads((PROJECT / ".devcontainer/devcontainer.json").read_text())
[ATTACH, _] = json.loads((PROJECT / ".vscode/launch.json").read_text())["configurations"]


@pytest.fixture(scope="module")
def opened(docker: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with the workspace, in which the command for a new container has run."""
    folder = copy_checkout(tmp_path_factory.mktemp("devcontainer"))
    # An editor gives the container's user the number of the host's, to whom the folder belongs.
    output(["chmod", "--recursive", "a+rwX", str(folder)])
    files = [folder / ".devcontainer" / name for name in GIVEN["dockerComposeFile"]]
    with stack(folder, COMPOSE_FILE=":".join(str(file.resolve()) for file in files)) as given:
        given.compose("up", "--build", "--wait")
        work(given, GIVEN["postCreateCommand"])
        yield given


def work(opened: Stack, command: str) -> str:
    """What a command prints in the workspace."""
    where = ("--user", GIVEN["remoteUser"], "--workdir", GIVEN["workspaceFolder"])
    return opened.compose("exec", "-T", *where, GIVEN["service"], "sh", "-c", command)


def test_the_forwarded_port_is_the_service_s(opened: Stack) -> None:
    [address] = GIVEN["forwardPorts"]
    assert '"status":"ready"' in work(opened, f"curl --silent http://{address}/ready")


def test_the_debugger_listens_where_the_editor_attaches(opened: Stack) -> None:
    address = (ATTACH["connect"]["host"], ATTACH["connect"]["port"])
    program = f"import socket; print(socket.create_connection({address}, 10).recv(64).decode())"
    assert work(opened, f'python -c "{program}"').startswith("Content-Length:")


def test_an_edit_in_the_workspace_shows_in_the_next_answers(opened: Stack) -> None:
    path = "src/fastapi_k8s/health.py"
    work(opened, f"""sed --in-place 's/"status": "ok"}}/"status": "edited"}}/' {path}""")
    assert '"edited"' in (opened.folder / path).read_text()
    ask = "curl --silent http://api:8000/health || true"  # nobody answers while it starts again
    wait_until(lambda: "edited" in work(opened, ask), 15, "the edit's effect")


@pytest.mark.parametrize(
    ("target", "part"), [("test-unit", "test_settings"), ("test-integration", "test_idempotency")]
)
def test_the_tests_run_and_leave_the_host_s_environment_alone(
    opened: Stack, target: str, part: str
) -> None:
    """A part of each; the integration tests start PostgreSQL, which refuses root."""
    assert " passed" in work(opened, f"PYTEST_ADDOPTS='-k {part}' make {target}")
    assert not (opened.folder / ".venv").exists()
