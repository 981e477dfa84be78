"""Run kubectl against one context and one namespace."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastapi_k8s import NAME

KubernetesObject: TypeAlias = dict[str, Any]
"""A Kubernetes object as `kubectl get --output=json` prints it."""

PART_OF_LABEL = "app.kubernetes.io/part-of"
"""The label that every object of k8s.yaml has, with the application's name as its value."""
PART_OF_SELECTOR = f"{PART_OF_LABEL}={NAME}"
READ_TIMEOUT = "--request-timeout=20s"
"""For requests that only read. Without it, an API server that hangs would outlast every wait."""


class ClusterError(Exception):
    """An action failed. The message states the reason and what the user can do."""


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command and return its standard output.

    Raises ClusterError if the command fails or is not installed.
    """
    try:
        process = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]} is not installed. Install it and try again.") from error
    if process.returncode != 0:
        reason = (
            process.stderr.strip() or process.stdout.strip() or f"exit code {process.returncode}"
        )
        raise ClusterError(f"{' '.join(command)}: {reason}")
    return process.stdout


@dataclass(frozen=True)
class Kubectl:
    """kubectl with `--context` and `--namespace` set."""

    context: str
    namespace: str

    def command_line(self, *arguments: str) -> list[str]:
        """Return the full command line for these arguments."""
        return ["kubectl", "--context", self.context, "--namespace", self.namespace, *arguments]

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its standard output. Raises ClusterError if it fails."""
        return run(*self.command_line(*arguments), stdin=stdin)

    def run_in_terminal(self, *arguments: str) -> int:
        """Run kubectl with this terminal as its input and output, and return its exit code."""
        return subprocess.run(self.command_line(*arguments), check=False).returncode

    def get(self, *arguments: str) -> KubernetesObject | None:
        """Return the object that `kubectl get` finds, or None. Raises ClusterError."""
        output = self.run("get", *arguments, "--ignore-not-found", "--output=json", READ_TIMEOUT)
        if not output:
            return None
        kubernetes_object: KubernetesObject = json.loads(output)
        return kubernetes_object

    def get_existing(self, *arguments: str) -> KubernetesObject:
        """Return the object that `kubectl get` finds. Raises ClusterError if there is none."""
        kubernetes_object: KubernetesObject = json.loads(
            self.run("get", *arguments, "--output=json", READ_TIMEOUT)
        )
        return kubernetes_object

    def get_all(self, *arguments: str) -> list[KubernetesObject]:
        """Return the objects that `kubectl get` lists. Raises ClusterError."""
        output = self.run("get", *arguments, "--output=json", READ_TIMEOUT)
        objects: list[KubernetesObject] = json.loads(output)["items"]
        return objects

    def list_pods(self, component: str = "api") -> list[KubernetesObject]:
        """Return the pods of a component that start or run. Raises ClusterError."""
        selector = f"{PART_OF_SELECTOR},app.kubernetes.io/component={component}"
        pods = self.get_all("pods", f"--selector={selector}")
        return [pod for pod in pods if not _has_ended(pod)]

    def get_application_object(self, kind: str = "deployment") -> KubernetesObject:
        """Return the object `api` of this kind. Raises ClusterError if it is not deployed.

        An object that is called `api` and belongs to another application counts as missing.
        """
        kubernetes_object = self.get(kind, "api")
        if kubernetes_object is None or not is_part_of_application(kubernetes_object):
            raise ClusterError(
                f"Nothing is deployed on {self.context} in {self.namespace}. Run: make deploy"
            )
        return kubernetes_object


def is_part_of_application(kubernetes_object: KubernetesObject) -> bool:
    """Whether the object has the label that every object of k8s.yaml has."""
    labels = kubernetes_object["metadata"].get("labels", {})
    return bool(labels.get(PART_OF_LABEL) == NAME)


def _has_ended(pod: KubernetesObject) -> bool:
    """Whether the pod is being deleted, or has failed.

    An evicted pod has failed. The cluster may keep it for a long time after its replacement runs.
    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection
    """
    return "deletionTimestamp" in pod["metadata"] or pod["status"]["phase"] == "Failed"
