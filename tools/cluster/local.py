"""The local clusters: which contexts are theirs, and how an image gets to their nodes."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from .kubectl import ClusterError, Kubectl, run

CONTEXTS = re.compile(
    "docker-desktop|docker-for-desktop|kind-.+|minikube|k3d-.+|rancher-desktop|colima(-.+)?|orbstack"
)
IMPORT = ("ctr", "--namespace=k8s.io", "images", "import", "-")


def choose_context(given: str) -> str:
    """The context that was given, or the current one if it is local. Raises ClusterError."""
    if given:
        return given
    current = run("kubectl", "config", "current-context").strip()
    if not CONTEXTS.fullmatch(current) and not _is_minikube(current):
        raise ClusterError(
            f"The current context is {current}, which is not known as a local cluster."
            f" If you mean it, say so: CONTEXT={current}"
        )
    return current


def _is_minikube(context: str) -> bool:
    """Whether minikube wrote the context: it is named like a profile, whatever that is called."""
    found = json.loads(
        run("kubectl", "config", "view", "--minify", f"--context={context}", "--output=json")
    )
    marks = found["contexts"][0]["context"].get("extensions", [])
    return any(
        each.get("extension", {}).get("provider") == "minikube.sigs.k8s.io" for each in marks
    )


def load(kubectl: Kubectl, image: str, command: str = "") -> None:
    """Hand an image of the Docker engine to the cluster's nodes. Raises ClusterError.

    `command` is the user's own, called with the image's name. Without it, the cluster's kind
    decides; if that is unknown, or shares the engine's images, the image counts as there.
    """
    if command:
        called = f"{command} {shlex.quote(image)}"
        print(called, flush=True)
        if code := subprocess.run(called, shell=True, check=False).returncode:
            raise ClusterError(f"IMAGE_LOADER ended with exit code {code}.")
        return
    # Of all nodes; minikube's command is for all of them at once.
    for importer in dict.fromkeys(importers(kubectl.context, kubectl.items("nodes"))):
        print(f"docker save {image} | {shlex.join(importer)}", flush=True)
        if not shutil.which(importer[0]):
            raise ClusterError(f"{importer[0]} is missing: install it, or give IMAGE_LOADER=.")
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
            code = subprocess.run(importer, stdin=saving.stdout, check=False).returncode
        if code or saving.returncode:
            raise ClusterError(
                f"{importer[0]} ended with exit code {code}: the image is not there."
            )


def importers(context: str, nodes: list[Any]) -> Iterator[tuple[str, ...]]:
    """The commands that take an image's archive (docker save) on standard input.

    Not kind's and k3d's own: kind does not find Docker Desktop's hidden nodes, and k3d's ends with
    code 0 when it failed (https://github.com/k3d-io/k3d/issues/1484).
    """
    for node in nodes:
        name, provider = node["metadata"]["name"], node["spec"].get("providerID", "")
        profile = node["metadata"]["labels"].get("minikube.k8s.io/name")
        if profile:
            yield ("minikube", f"--profile={profile}", "image", "load", "-")
        elif provider.startswith(("kind://docker/", "k3s://k3d-")):  # the node is a container
            yield ("docker", "exec", "--interactive", name, *IMPORT)
        elif node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("docker://"):
            continue  # the engine that built it
        elif context == "rancher-desktop":
            yield ("nerdctl", "--namespace=k8s.io", "load")
        elif re.fullmatch("colima(-.+)?", context):
            profile = context.partition("-")[2] or "default"
            yield ("colima", f"--profile={profile}", "nerdctl", "--", "--namespace=k8s.io", "load")
