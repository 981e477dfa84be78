"""The editor settings agree with the Compose stack that they open."""

import json
import re
from typing import Any

import yaml

from tools.checkout import PROJECT


def read_yaml(name: str) -> Any:
    """Read a YAML file of the checkout."""
    return yaml.safe_load((PROJECT / name).read_text())


def read_json(name: str) -> Any:
    """Read a JSON file of the checkout."""
    return json.loads((PROJECT / name).read_text())


def test_the_debugger_attaches_to_the_port_and_the_paths_of_the_stack() -> None:
    launch = read_json(".vscode/launch.json")["configurations"][0]
    services = read_yaml("docker-compose.yml")["services"]
    assert launch["connect"]["host"] in services
    dockerfile = (PROJECT / "Dockerfile.dev").read_text()
    debug_port = re.search(r'"--listen", "0\.0\.0\.0:(\d+)"', dockerfile)
    assert debug_port
    assert launch["connect"]["port"] == int(debug_port[1])

    override = read_yaml("docker-compose.override.yml")["services"][launch["connect"]["host"]]
    assert override["ports"][0].endswith(f":{debug_port[1]}")
    [mapping] = launch["pathMappings"]
    local_root = mapping["localRoot"].replace("${workspaceFolder}", ".")
    assert override["volumes"] == [f"{local_root}:{mapping['remoteRoot']}:ro,z"]


def test_the_dev_container_uses_the_folder_user_and_interpreter_of_its_image() -> None:
    settings = read_json(".devcontainer/devcontainer.json")
    workspace = read_yaml(".devcontainer/compose.yml")["services"][settings["service"]]
    assert workspace["volumes"] == [f".:{settings['workspaceFolder']}:z"]

    dockerfile = (PROJECT / ".devcontainer/Dockerfile").read_text()
    users = re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)
    assert users[-1] == settings["remoteUser"]
    interpreter = settings["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    environment = interpreter.removesuffix("/bin/python")
    assert f"UV_PROJECT_ENVIRONMENT={environment} " in dockerfile
