"""kubectl, on one context and in one namespace."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from fastapi_k8s import NAME

PART_OF = f"app.kubernetes.io/part-of={NAME}"
"""The label of everything in k8s.yaml, as a selector."""
LIMIT = "--request-timeout=20s"
"""Of what only asks: an API server that hangs must not outlast a wait."""


class ClusterError(Exception):
    """What went wrong and what to do, for the person at the terminal."""


def run(*command: str, given: str | None = None) -> str:
    """A command's standard output. Raises ClusterError if it fails, or is not installed."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]} is missing: install it and try again.") from error
    if done.returncode:
        told = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise ClusterError(f"{' '.join(command)}: {told}")
    return done.stdout


@dataclass(frozen=True)
class Kubectl:
    """Calls kubectl as `kubectl --context ... --namespace ...`."""

    context: str
    namespace: str

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        place = ("--context", self.context, "--namespace", self.namespace)
        return ["kubectl", *place, *arguments]

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        """What kubectl prints; `given` is its standard input. Raises ClusterError."""
        return run(*self.command(*arguments), given=given)

    def get(self, *arguments: str) -> Any:
        """The object that `kubectl get` finds, or None if there is none. Raises ClusterError."""
        found = self("get", *arguments, "--ignore-not-found", "--output=json", LIMIT)
        return json.loads(found) if found else None

    def items(self, *arguments: str) -> list[Any]:
        """The objects that `kubectl get` lists. Raises ClusterError."""
        items: list[Any] = json.loads(self("get", *arguments, "--output=json", LIMIT))["items"]
        return items

    def pods(self, component: str = "api") -> list[Any]:
        """The pods of a component of the service that are not on their way out."""
        selector = f"--selector={PART_OF},app.kubernetes.io/component={component}"
        found = self.items("pods", selector)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def deployed(self, kind: str = "deployment") -> Any:
        """The service's Deployment, or another object of its name. Raises ClusterError if none."""
        found = self.get(kind, "api")
        if found is None or not is_ours(found):
            raise ClusterError(
                f"Nothing is deployed on {self.context} in {self.namespace}: make deploy"
            )
        return found

    def show(self, *arguments: str) -> int:
        """Run kubectl on this terminal. Its exit code."""
        return subprocess.run(self.command(*arguments), check=False).returncode


def is_ours(found: Any) -> bool:
    """Whether an object is labelled as part of this service."""
    key, _, name = PART_OF.partition("=")
    return bool(found["metadata"].get("labels", {}).get(key) == name)
