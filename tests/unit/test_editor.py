"""What the editor is told agrees with the stack that it opens."""

import json
import re
from typing import Any

import yaml

from tests.checkout import PROJECT


def read(name: str) -> Any:
    """A file of the checkout, as YAML, which JSON is too."""
    return yaml.safe_load((PROJECT / name).read_text())


def test_the_debugger_s_address_and_paths_are_those_of_the_stack() -> None:
    attach = json.loads((PROJECT / ".vscode/launch.json").read_text())["configurations"][0]
    [service] = read("docker-compose.yml")["services"].keys() & {attach["connect"]["host"]}
    listens = re.search(r'"--listen", "0\.0\.0\.0:(\d+)"', (PROJECT / "Dockerfile.dev").read_text())
    assert listens
    assert attach["connect"]["port"] == int(listens[1])
    development = read("docker-compose.override.yml")["services"][service]
    [mapping] = attach["pathMappings"]
    local = mapping["localRoot"].replace("${workspaceFolder}", ".")
    assert development["volumes"] == [f"{local}:{mapping['remoteRoot']}:ro"]
    assert development["ports"][0].endswith(f":{listens[1]}")


def test_the_dev_container_s_folder_user_and_interpreter_are_those_of_its_image() -> None:
    given = json.loads((PROJECT / ".devcontainer/devcontainer.json").read_text())
    workspace = read(".devcontainer/compose.yml")["services"][given["service"]]
    assert workspace["volumes"] == [f".:{given['workspaceFolder']}"]
    image = (PROJECT / ".devcontainer/Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)", image, re.MULTILINE)[-1] == given["remoteUser"]
    interpreter = given["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert f"UV_PROJECT_ENVIRONMENT={interpreter.removesuffix('/bin/python')} " in image
