"""The dev container, started by Docker Compose as devcontainer.json configures it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from python_on_whales import DockerClient

from tests.container.test_compose import Stack, create_stack
from tools.checkout import PROJECT, copy_checkout, run_command
from tools.dev.servers import wait_until

DEVCONTAINER: dict[str, Any] = json.loads((PROJECT / ".devcontainer/devcontainer.json").read_text())
[ATTACH, _] = json.loads((PROJECT / ".vscode/launch.json").read_text())["configurations"]


@pytest.fixture(scope="module")
def workspace(docker: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with the workspace, after the command for new containers has run."""
    folder = copy_checkout(tmp_path_factory.mktemp("devcontainer"))
    # An editor gives the container's user the id of the user who owns the folder. Compose does not.
    run_command(["chmod", "--recursive", "a+rwX", str(folder)])
    files = [folder / ".devcontainer" / name for name in DEVCONTAINER["dockerComposeFile"]]
    compose_file = ":".join(str(file.resolve()) for file in files)
    with create_stack(folder, COMPOSE_FILE=compose_file) as stack:
        stack.compose("up", "--build", "--wait")
        run_in_workspace(stack, DEVCONTAINER["postCreateCommand"])
        yield stack


def run_in_workspace(stack: Stack, command: str) -> str:
    """Run a shell command in the workspace as its user, and return the output."""
    options = ("--user", DEVCONTAINER["remoteUser"], "--workdir", DEVCONTAINER["workspaceFolder"])
    return stack.compose("exec", "-T", *options, DEVCONTAINER["service"], "sh", "-c", command)


def test_the_forwarded_port_is_the_port_of_the_api(workspace: Stack) -> None:
    [address] = DEVCONTAINER["forwardPorts"]
    assert '"status":"ready"' in run_in_workspace(
        workspace, f"curl --silent http://{address}/ready"
    )


def test_the_debugger_listens_where_the_editor_attaches(workspace: Stack) -> None:
    address = (ATTACH["connect"]["host"], ATTACH["connect"]["port"])
    program = f"import socket; print(socket.create_connection({address}, 10).recv(64).decode())"
    output = run_in_workspace(workspace, f'python -c "{program}"')
    assert output.startswith("Content-Length:")


def test_an_edit_in_the_workspace_changes_the_responses(workspace: Stack) -> None:
    path = "src/fastapi_k8s/health.py"
    run_in_workspace(workspace, f"""sed --in-place 's/"ok"/"edited"/g' {path}""")
    assert '"edited"' in (workspace.folder / path).read_text()
    # The request fails while the application restarts.
    request = "curl --silent http://api:8000/health || true"
    wait_until(lambda: "edited" in run_in_workspace(workspace, request), 15, "the edited response")


@pytest.mark.parametrize(
    ("target", "module"), [("test-unit", "test_settings"), ("test-integration", "test_idempotency")]
)
def test_tests_run_in_the_workspace_without_changing_the_environment_of_the_host(
    workspace: Stack, target: str, module: str
) -> None:
    """One module of each target. PostgreSQL, which the integration tests start, refuses root."""
    output = run_in_workspace(workspace, f"PYTEST_ADDOPTS='-k {module}' make {target}")
    assert " passed" in output
    assert not (workspace.folder / ".venv").exists()
