"""What the make targets for Kubernetes do, each in the order of its steps."""

import json
import os
import shlex
import sys
from dataclasses import dataclass

from fastapi_k8s import NAME

from . import images, local, manifest
from .kubectl import PART_OF, ClusterError, Kubectl, is_ours
from .rollout import image_of, is_ready, prove, running, under_way, wait
from .secret import create_secret

REMOVED = "deployment,statefulset,hpa,pdb,service,networkpolicy,configmap,serviceaccount"


@dataclass(frozen=True)
class Options:
    """Where to, the image's name, how it gets there, and how long to wait, in seconds."""

    kubectl: Kubectl
    image: str
    load: str
    timeout: float

    @classmethod
    def from_environment(cls) -> "Options":
        """As make passes it on. Raises ClusterError if the context may not or cannot be used."""
        timeout = os.environ.get("TIMEOUT") or "180"
        if not timeout.isdecimal():
            raise ClusterError(f"TIMEOUT must be a number of seconds, not '{timeout}'.")
        kubectl = Kubectl(
            local.choose_context(os.environ.get("CONTEXT", "")),
            os.environ.get("NAMESPACE") or NAME,
        )
        # A cluster that does not answer is told now, and not when a wait's limit is over.
        kubectl("version", "--request-timeout=10s")
        image = os.environ.get("IMAGE_NAME") or NAME
        return cls(kubectl, image, os.environ.get("IMAGE_LOADER", ""), float(timeout))

    @property
    def again(self) -> str:
        """The variables that lead another make target to the same place."""
        given = {name: os.environ.get(name) for name in ("CONTEXT", "NAMESPACE")}
        return "".join(f" {name}={shlex.quote(value)}" for name, value in given.items() if value)


def deploy(options: Options) -> None:
    """Apply k8s.yaml with the image just built, wait for it, and say where the service is."""
    kubectl = options.kubectl
    image = images.tagged_by_content(options.image)
    _refuse_foreign_namespace(kubectl)
    manifest.name_config()
    local.load(kubectl, image, options.load)
    namespace, *rest = manifest.render(kubectl.namespace, image).split("\n---\n")
    print(kubectl("apply", "--filename=-", given=namespace), end="")
    create_secret(kubectl)
    if kubectl.get("deployment", "api"):
        _leave_what_failed(kubectl)
    print(kubectl("apply", "--filename=-", given="\n---\n".join(rest)), end="")
    least = kubectl.deployed("hpa")["spec"]["minReplicas"]
    if kubectl.deployed()["spec"]["replicas"] < least:  # from 0 the autoscaler would not begin
        kubectl("scale", "deployment/api", f"--replicas={least}")
    wait(kubectl, options.timeout)
    _prove(options, image)
    print(f"In the cluster the API is http://api.{kubectl.namespace}, and from here:")
    print(f"    make port-forward{options.again}")


def restart(options: Options) -> None:
    """Roll the pods over to the image just built, and prove that they run it."""
    kubectl = options.kubectl
    image = images.tagged_by_content(options.image)
    before = image_of(kubectl)
    local.load(kubectl, image, options.load)
    _leave_what_failed(kubectl)
    if image == image_of(kubectl):
        kubectl("rollout", "restart", "deployment/api")
    else:
        kubectl("set", "image", "deployment/api", f"migrate={image}", f"api={image}")
    print(f"{before} -> {image}")
    wait(kubectl, options.timeout)
    _prove(options, image)


def rollback(options: Options) -> None:
    """Roll the pods back to the template before this one: its image and its settings."""
    kubectl = options.kubectl
    before = image_of(kubectl)
    kubectl("rollout", "undo", "deployment/api")
    image = image_of(kubectl)
    print(f"{before} -> {image}")
    wait(kubectl, options.timeout)
    print(f"{len(running(kubectl, image))} pods run {image}")


def scale(options: Options) -> None:
    """Set the autoscaler's minimum to N, and wait for as many pods."""
    kubectl, number = options.kubectl, os.environ.get("N", "")
    autoscaler = kubectl.deployed("hpa")
    most = autoscaler["spec"]["maxReplicas"]
    if not number.isdecimal() or not 1 <= int(number) <= most:
        raise ClusterError(
            f"N must be a number from 1 to {most}, the autoscaler's maximum"
            f" (maxReplicas in {manifest.MANIFEST}), not '{number}'."
        )
    patch = json.dumps({"spec": {"minReplicas": int(number)}})
    kubectl("patch", "hpa", "api", f"--patch={patch}")
    conditions = autoscaler["status"].get("conditions", [])
    measured = any(c["type"] == "ScalingActive" and c["status"] == "True" for c in conditions)
    if not measured:  # without metrics it takes no pod away
        kubectl("scale", "deployment/api", f"--replicas={number}")
    wait(kubectl, options.timeout)
    print(f"{len(kubectl.pods())} pods, and at least {number} from now on")


def status(options: Options) -> None:
    """Show what is there and what it complains of."""
    kubectl = options.kubectl
    kubectl.deployed()
    for kind in ("deployment,statefulset", "hpa", "pdb,service", "pods"):
        kubectl.show("get", kind, "--output=wide")
    kubectl.show("get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp")


def logs(options: Options) -> None:
    """Follow the logs of all pods."""
    options.kubectl.deployed()
    pods = (f"--selector={PART_OF}", "--all-containers", "--max-log-requests=50")
    sys.exit(options.kubectl.show("logs", *pods, "--follow", "--prefix", "--tail=20"))


def forward(options: Options) -> None:
    """Bring the service to a port of this machine."""
    port = os.environ.get("PORT") or "8000"
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ClusterError(f"PORT must be a number from 1 to 65535, not '{port}'.")
    options.kubectl.deployed()
    sys.exit(
        options.kubectl.show("port-forward", "--address=127.0.0.1", "service/api", f"{port}:http")
    )


def shell(options: Options) -> None:
    """Open a shell beside the service, in an ephemeral container of its first pod."""
    kubectl = options.kubectl
    kubectl.deployed()
    pods = [pod for pod in kubectl.pods() if is_ready(pod)] or kubectl.pods()
    database = kubectl.get("statefulset", "db")
    if not pods or not database:
        raise ClusterError("There is no pod to go into, or no PostgreSQL whose image has a shell.")
    (image,) = (each["image"] for each in database["spec"]["template"]["spec"]["containers"])
    place = (pods[0]["metadata"]["name"], "--target=api", f"--image={image}")
    terminal = ["--stdin", *(["--tty"] if sys.stdin.isatty() else [])]
    sys.exit(kubectl.show("debug", *place, "--profile=restricted", *terminal, "--", "sh"))


def undeploy(options: Options) -> None:
    """Remove everything but the data and their password."""
    kubectl = options.kubectl
    kubectl.deployed()
    limit = f"--timeout={options.timeout:g}s"
    print(kubectl("delete", REMOVED, f"--selector={PART_OF}", limit), end="")
    print(
        "The database's volume and the Secret with its password are kept: make deploy, or destroy"
    )


def destroy(options: Options) -> None:
    """Remove the namespace with its data, after asking."""
    kubectl = options.kubectl
    if kubectl.get("namespace", kubectl.namespace) is None:
        raise ClusterError(f"There is no namespace {kubectl.namespace} on {kubectl.context}.")
    _refuse_foreign_namespace(kubectl)
    print(f"This removes namespace {kubectl.namespace} on {kubectl.context}, and all its data.")
    print("Type the namespace's name to go on: ", end="", flush=True)
    if sys.stdin.readline().strip() != kubectl.namespace:
        raise ClusterError("Nothing was removed.")
    kubectl("delete", "namespace", kubectl.namespace, f"--timeout={options.timeout:g}s")
    print("Removed.")


def _prove(options: Options, image: str) -> None:
    number = prove(options.kubectl, image, images.digests(image))
    print(f"{number} pods run {image}")


def _leave_what_failed(kubectl: Kubectl) -> None:
    """Undo a rollout that has not ended, or a later rollback would lead to it."""
    if under_way(kubectl):
        kubectl("rollout", "undo", "deployment/api")


def _refuse_foreign_namespace(kubectl: Kubectl) -> None:
    found = kubectl.get("namespace", kubectl.namespace)
    if found and not is_ours(found):
        raise ClusterError(
            f"Namespace {kubectl.namespace} on {kubectl.context} is not {NAME}'s. Take another with"
            f" NAMESPACE=, or say that it is: kubectl label namespace {kubectl.namespace} {PART_OF}"
        )
