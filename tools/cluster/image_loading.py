"""Load an image from the Docker engine into the nodes of a cluster."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator

from .kubectl import ClusterError, Kubectl, KubernetesObject

CONTAINERD_IMPORT = ("ctr", "--namespace=k8s.io", "images", "import", "-")


def load_image(kubectl: Kubectl, image: str, loader: str = "") -> None:
    """Make an image of the Docker engine available on the cluster's nodes.

    `loader` is a shell command of the user, which is called with the image's name. Without it,
    the command follows from the type of the cluster. On clusters of an unknown type, and on those
    that share the Docker engine's images, nothing is loaded. Raises ClusterError.
    """
    if loader:
        _run_loader(loader, image)
        return
    commands = import_commands(kubectl.context, kubectl.get_all("nodes"))
    # Without duplicates: one call of minikube loads the image into all nodes of its profile.
    for command in dict.fromkeys(commands):
        _save_and_import(image, command)


def _run_loader(loader: str, image: str) -> None:
    command = f"{loader} {shlex.quote(image)}"
    print(command, flush=True)
    exit_code = subprocess.run(command, shell=True, check=False).returncode
    if exit_code != 0:
        raise ClusterError(f"IMAGE_LOADER failed with exit code {exit_code}.")


def _save_and_import(image: str, command: tuple[str, ...]) -> None:
    """Run `docker save` and pipe the archive into `command`. Raises ClusterError."""
    print(f"docker save {image} | {shlex.join(command)}", flush=True)
    if not shutil.which(command[0]):
        raise ClusterError(f"{command[0]} is not installed. Install it, or set IMAGE_LOADER=.")
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
        exit_code = subprocess.run(command, stdin=save.stdout, check=False).returncode
    if exit_code != 0:
        raise ClusterError(f"{command[0]} failed with exit code {exit_code}: no image was loaded.")
    if save.returncode != 0:
        raise ClusterError(
            f"docker save failed with exit code {save.returncode}: no image was loaded."
        )


def import_commands(context: str, nodes: list[KubernetesObject]) -> Iterator[tuple[str, ...]]:
    """Yield, for each node, the command that reads an image archive from standard input.

    The commands of kind and k3d are not used: `kind load` does not find the hidden nodes of Docker
    Desktop, and `k3d image import` exits with 0 after a failure
    (https://github.com/k3d-io/k3d/issues/1484).
    """
    for node in nodes:
        command = _import_command(context, node)
        if command is not None:
            yield command


def _import_command(context: str, node: KubernetesObject) -> tuple[str, ...] | None:
    """Return the import command of a node, or None if the node needs none or is unknown."""
    provider_id = node["spec"].get("providerID", "")
    minikube_profile = node["metadata"]["labels"].get("minikube.k8s.io/name")
    runtime = node["status"]["nodeInfo"]["containerRuntimeVersion"]

    if minikube_profile:
        return ("minikube", f"--profile={minikube_profile}", "image", "load", "-")
    if provider_id.startswith(("kind://docker/", "k3s://k3d-")):
        # The node is a container of the Docker engine.
        container = node["metadata"]["name"]
        return ("docker", "exec", "--interactive", container, *CONTAINERD_IMPORT)
    if runtime.startswith("docker://"):
        # The node uses the images of the Docker engine that built the image, so nothing has to be
        # loaded.
        return None
    if context == "rancher-desktop":
        return ("nerdctl", "--namespace=k8s.io", "load")
    if re.fullmatch("colima(-.+)?", context):
        profile = context.partition("-")[2] or "default"
        return ("colima", f"--profile={profile}", "nerdctl", "--", "--namespace=k8s.io", "load")
    return None
