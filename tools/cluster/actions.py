"""The actions of the make targets for Kubernetes."""

import json
import os
import shlex
import sys
from dataclasses import dataclass

from fastapi_k8s import NAME

from . import contexts, image_loading, images, manifest, pods, rollout
from .kubectl import (
    PART_OF_SELECTOR,
    ClusterError,
    Kubectl,
    KubernetesObject,
    is_part_of_application,
)
from .secret import ensure_secret

DEFAULT_TIMEOUT_SECONDS = "180"
DEFAULT_LOCAL_PORT = "8000"
UNDEPLOYED_KINDS = "deployment,statefulset,hpa,pdb,service,networkpolicy,configmap,serviceaccount"
"""Everything but the Secret, the volume claim and the Namespace."""


@dataclass(frozen=True)
class Options:
    """The options of the make targets.

    `image_name` is the image without a tag, `image_loader` the user's command that loads it into
    the nodes (or an empty string), `timeout_seconds` the limit of each wait.
    """

    kubectl: Kubectl
    image_name: str
    image_loader: str
    timeout_seconds: float

    @classmethod
    def from_environment(cls) -> "Options":
        """Read the variables that make passes on.

        Raises ClusterError if a value is invalid or if the cluster does not respond.
        """
        timeout = os.environ.get("TIMEOUT") or DEFAULT_TIMEOUT_SECONDS
        if not timeout.isdecimal():
            raise ClusterError(f"TIMEOUT must be a number of seconds, not '{timeout}'.")
        kubectl = Kubectl(
            context=contexts.choose_context(os.environ.get("CONTEXT", "")),
            namespace=os.environ.get("NAMESPACE") or NAME,
        )
        # Fails at once if the cluster does not respond. A wait would hide that until its timeout.
        kubectl.run("version", "--request-timeout=10s")
        return cls(
            kubectl=kubectl,
            image_name=os.environ.get("IMAGE_NAME") or NAME,
            image_loader=os.environ.get("IMAGE_LOADER", ""),
            timeout_seconds=float(timeout),
        )


def deploy(options: Options) -> None:
    """Apply k8s.yaml with the newest image, wait for the rollout and verify what runs."""
    kubectl = options.kubectl
    image = images.tag_by_content(options.image_name)
    _refuse_foreign_namespace(kubectl)
    image_loading.load_image(kubectl, image, options.image_loader)
    namespace, *objects = manifest.render(kubectl.namespace, image)
    print(kubectl.run("apply", "--filename=-", stdin=json.dumps(namespace)), end="")
    ensure_secret(kubectl)
    if kubectl.get("deployment", "api"):
        _undo_incomplete_rollout(kubectl)
    print(kubectl.run("apply", "--filename=-", stdin=manifest.to_json(objects)), end="")
    _ensure_min_replicas(kubectl)
    rollout.wait_for_rollout(kubectl, options.timeout_seconds)
    _verify_image(options, image)
    print(f"In the cluster, the API is at http://api.{kubectl.namespace}. To reach it from here:")
    print(f"    make port-forward{_make_variables()}")


def restart(options: Options) -> None:
    """Roll the pods to the newest image, wait for the rollout and verify what runs.

    If the image has not changed, the pods are replaced too.
    """
    kubectl = options.kubectl
    image = images.tag_by_content(options.image_name)
    previous_image = rollout.get_deployed_image(kubectl)
    image_loading.load_image(kubectl, image, options.image_loader)
    _undo_incomplete_rollout(kubectl)
    if image == rollout.get_deployed_image(kubectl):
        kubectl.run("rollout", "restart", "deployment/api")
    else:
        kubectl.run("set", "image", "deployment/api", f"migrate={image}", f"api={image}")
    print(f"{previous_image} -> {image}")
    rollout.wait_for_rollout(kubectl, options.timeout_seconds)
    _verify_image(options, image)


def rollback(options: Options) -> None:
    """Roll the pods back to the previous template: its image and its settings."""
    kubectl = options.kubectl
    previous_image = rollout.get_deployed_image(kubectl)
    kubectl.run("rollout", "undo", "deployment/api")
    image = rollout.get_deployed_image(kubectl)
    print(f"{previous_image} -> {image}")
    rollout.wait_for_rollout(kubectl, options.timeout_seconds)
    ready_pods = [pod for pod in rollout.list_ready_pods(kubectl) if pods.api_image(pod) == image]
    print(f"{len(ready_pods)} pods run {image}")


def scale(options: Options) -> None:
    """Set the autoscaler's minimum to N and wait for as many pods."""
    kubectl = options.kubectl
    autoscaler = kubectl.get_application_object("hpa")
    max_replicas = autoscaler["spec"]["maxReplicas"]
    number = os.environ.get("N", "")
    if not number.isdecimal() or not 1 <= int(number) <= max_replicas:
        raise ClusterError(
            f"N must be a number from 1 to {max_replicas}, the autoscaler's maximum"
            f" (maxReplicas in k8s.yaml), not '{number}'."
        )
    patch = {"spec": {"minReplicas": int(number)}}
    kubectl.run("patch", "hpa", "api", f"--patch={json.dumps(patch)}")
    if not _has_metrics(autoscaler):
        # Without metrics the autoscaler never removes a pod.
        kubectl.run("scale", "deployment/api", f"--replicas={number}")
    rollout.wait_for_rollout(kubectl, options.timeout_seconds)
    print(f"{len(kubectl.list_pods())} pods run. The minimum is {number}.")


def show_status(options: Options) -> None:
    """Show workloads, pods and warnings."""
    kubectl = options.kubectl
    kubectl.get_application_object()
    for kinds in ("deployment,statefulset", "hpa", "pdb,service", "pods"):
        kubectl.run_in_terminal("get", kinds, "--output=wide")
    kubectl.run_in_terminal(
        "get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp"
    )


def follow_logs(options: Options) -> None:
    """Follow the logs of all pods until Ctrl-C. Exits with kubectl's code."""
    options.kubectl.get_application_object()
    exit_code = options.kubectl.run_in_terminal(
        "logs",
        f"--selector={PART_OF_SELECTOR}",
        "--all-containers",
        "--max-log-requests=50",
        "--follow",
        "--prefix",
        "--tail=20",
    )
    sys.exit(exit_code)


def forward_port(options: Options) -> None:
    """Forward a port of this machine to the API until Ctrl-C. Exits with kubectl's code."""
    port = os.environ.get("PORT") or DEFAULT_LOCAL_PORT
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ClusterError(f"PORT must be a number from 1 to 65535, not '{port}'.")
    options.kubectl.get_application_object()
    exit_code = options.kubectl.run_in_terminal(
        "port-forward", "--address=127.0.0.1", "service/api", f"{port}:http"
    )
    sys.exit(exit_code)


def open_shell(options: Options) -> None:
    """Open a shell in an ephemeral container of an API pod. Exits with kubectl's code.

    The application's image has no shell, so the container runs PostgreSQL's image, which the
    nodes have already.
    """
    kubectl = options.kubectl
    kubectl.get_application_object()
    candidates = rollout.list_ready_pods(kubectl) or kubectl.list_pods()
    database = kubectl.get("statefulset", "db")
    if not candidates:
        raise ClusterError("There is no pod of the API to open a shell in.")
    if database is None:
        raise ClusterError("There is no StatefulSet db, whose image provides the shell.")
    (container,) = database["spec"]["template"]["spec"]["containers"]
    terminal = ["--stdin"]
    if sys.stdin.isatty():
        terminal.append("--tty")
    exit_code = kubectl.run_in_terminal(
        "debug",
        candidates[0]["metadata"]["name"],
        "--target=api",
        f"--image={container['image']}",
        "--profile=restricted",
        *terminal,
        "--",
        "sh",
    )
    sys.exit(exit_code)


def undeploy(options: Options) -> None:
    """Delete everything but the database's volume and the Secret with its password."""
    kubectl = options.kubectl
    kubectl.get_application_object()
    output = kubectl.run(
        "delete",
        UNDEPLOYED_KINDS,
        f"--selector={PART_OF_SELECTOR}",
        f"--timeout={options.timeout_seconds:g}s",
    )
    print(output, end="")
    print("The database's volume and the Secret with its password are kept.")
    print("`make deploy` uses them again, `make destroy` deletes them.")


def destroy(options: Options) -> None:
    """Delete the namespace with its data, if the user confirms it."""
    kubectl = options.kubectl
    if kubectl.get("namespace", kubectl.namespace) is None:
        raise ClusterError(f"There is no namespace {kubectl.namespace} on {kubectl.context}.")
    _refuse_foreign_namespace(kubectl)
    print(f"This deletes namespace {kubectl.namespace} on {kubectl.context} with all its data.")
    print("Type the name of the namespace to confirm: ", end="", flush=True)
    if sys.stdin.readline().strip() != kubectl.namespace:
        raise ClusterError("Nothing was deleted.")
    timeout = f"--timeout={options.timeout_seconds:g}s"
    kubectl.run("delete", "namespace", kubectl.namespace, timeout)
    print("The namespace is deleted.")


def _verify_image(options: Options, image: str) -> None:
    digests = images.read_digests(image)
    count = rollout.verify_image(options.kubectl, image, digests)
    print(f"{count} pods run {image}")


def _undo_incomplete_rollout(kubectl: Kubectl) -> None:
    """Undo a rollout that failed. Otherwise the next rollback would return to its template."""
    if rollout.is_in_progress(kubectl):
        kubectl.run("rollout", "undo", "deployment/api")


def _ensure_min_replicas(kubectl: Kubectl) -> None:
    """Scale the Deployment up to the autoscaler's minimum.

    The autoscaler does that too, but not from 0 replicas, which turn it off.
    """
    min_replicas = kubectl.get_application_object("hpa")["spec"]["minReplicas"]
    if kubectl.get_application_object()["spec"]["replicas"] < min_replicas:
        kubectl.run("scale", "deployment/api", f"--replicas={min_replicas}")


def _has_metrics(autoscaler: KubernetesObject) -> bool:
    """Whether the autoscaler gets metrics, which needs a metrics-server in the cluster."""
    for condition in autoscaler["status"].get("conditions", []):
        if condition["type"] == "ScalingActive":
            return bool(condition["status"] == "True")
    return False


def _refuse_foreign_namespace(kubectl: Kubectl) -> None:
    """Raise ClusterError if the namespace exists and does not have the application's label."""
    namespace = kubectl.get("namespace", kubectl.namespace)
    if namespace and not is_part_of_application(namespace):
        raise ClusterError(
            f"Namespace {kubectl.namespace} on {kubectl.context} does not belong to {NAME}. Choose"
            " another with NAMESPACE=, or label this one:"
            f" kubectl label namespace {kubectl.namespace} {PART_OF_SELECTOR}"
        )


def _make_variables() -> str:
    """Return the variables with which another make target uses the same context and namespace."""
    variables = ""
    for name in ("CONTEXT", "NAMESPACE"):
        value = os.environ.get(name)
        if value:
            variables += f" {name}={shlex.quote(value)}"
    return variables
