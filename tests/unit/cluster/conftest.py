"""Stand-ins for kubectl, docker and the tools of local clusters."""

import json
from pathlib import Path

import pytest

from tools.cluster.kubectl import Kubectl, KubernetesObject

IMAGE = "fastapi-k8s:0123456789ab"
KIND = Kubectl("kind-demo", "fastapi-k8s")


class FakeCommands:
    """Shell scripts in the place of commands. On PATH, only the system's own commands are left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = folder / "calls"

    def add(self, name: str, script: str) -> None:
        """Add a command that records its call and runs a shell script."""
        program = self._folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self._calls}"\n{script}\n')
        program.chmod(0o755)

    def add_responses(self, name: str, responses: dict[str, str]) -> None:
        """Add a command that prints a response for calls whose arguments contain the key.

        Any other call fails with exit code 9.
        """
        lines = ['case "$*" in']
        for number, (arguments, response) in enumerate(responses.items()):
            file = self._folder / f"{name}.{number}"
            file.write_text(response)
            lines.append(f"*'{arguments}'*) cat '{file}' ;;")
        lines += ["*) exit 9 ;;", "esac"]
        self.add(name, "\n".join(lines))

    def calls(self) -> list[str]:
        """Return the command lines of all calls so far."""
        if not self._calls.exists():
            return []
        return self._calls.read_text().splitlines()


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCommands:
    """An empty set of fake commands, first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return FakeCommands(folder)


def to_list(items: list[KubernetesObject]) -> str:
    """Return what `kubectl get` prints for a list of objects."""
    return json.dumps({"items": items})


def make_digest(digit: str) -> str:
    """Return a digest that consists of one hexadecimal digit."""
    return f"sha256:{digit * 64}"


def make_pod(image_id: str, *, ready: bool = True, waiting: str = "") -> KubernetesObject:
    """Return a pod with the fields that the tools read.

    `image_id` is what the node reports, `waiting` the reason for which the container waits.
    """
    state: KubernetesObject = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    status = {"name": "api", "imageID": image_id, "state": state, "restartCount": 0}
    return {
        "metadata": {"name": "api-1"},
        "spec": {"containers": [{"name": "api", "image": IMAGE}]},
        "status": {
            "phase": "Pending" if waiting else "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [status],
        },
    }


def make_deployment(image: str, part_of: str = "fastapi-k8s") -> KubernetesObject:
    """Return a Deployment with the fields that the tools read."""
    return {
        "metadata": {"labels": {"app.kubernetes.io/part-of": part_of}},
        "spec": {"template": {"spec": {"containers": [{"name": "api", "image": image}]}}},
    }
