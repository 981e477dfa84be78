"""kubectl, on one context and in one namespace."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any


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
        """What `kubectl get` finds, or None if there is no such object. Raises ClusterError."""
        found = self("get", *arguments, "--ignore-not-found", "--output=json")
        return json.loads(found) if found else None

    def pods(self, component: str = "api") -> list[Any]:
        """The pods of a component of the service that are not on their way out."""
        label = f"app.kubernetes.io/component={component}"
        found: list[Any] = self.get("pods", "--selector", label)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def show(self, *arguments: str) -> int:
        """Run kubectl on this terminal. Its exit code."""
        return subprocess.run(self.command(*arguments), check=False).returncode
