"""What the make targets for Kubernetes do, each in the order of its steps."""

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from fastapi_k8s import NAME

from . import images, local, manifest
from .kubectl import ClusterError, Kubectl
from .rollout import prove, rolled_out, wait
from .secret import create_secret

PART_OF = f"app.kubernetes.io/part-of={NAME}"
WORKLOADS = ("statefulset/db", "deployment/redis", "deployment/api")
REMOVED = "deployment,statefulset,hpa,pdb,service,networkpolicy,configmap,serviceaccount"


@dataclass(frozen=True)
class Target:
    """Where to, what, and how long to wait, in seconds."""

    kubectl: Kubectl
    image: str
    load: str
    timeout: float

    @classmethod
    def from_environment(cls) -> "Target":
        """As make passes it on. Raises ClusterError if the context may not or cannot be used."""
        timeout = os.environ.get("TIMEOUT") or "180"
        if not timeout.isdecimal():
            raise ClusterError(f"TIMEOUT must be a number of seconds, not '{timeout}'.")
        kubectl = Kubectl(
            local.choose_context(os.environ.get("CONTEXT", "")),
            os.environ.get("NAMESPACE") or NAME,
        )
        kubectl("version", "--request-timeout=10s")  # or each wait would end by its own limit
        image = os.environ.get("NAME") or NAME
        return cls(kubectl, image, os.environ.get("LOAD", ""), float(timeout))

    @property
    def again(self) -> str:
        """The variables that lead another target to the same place."""
        given = {name: os.environ.get(name) for name in ("CONTEXT", "NAMESPACE")}
        return "".join(f" {name}={value}" for name, value in given.items() if value)


def deploy(target: Target) -> None:
    """Apply k8s.yaml with the image just built, wait for it, and say where the service is."""
    kubectl = target.kubectl
    image = images.tagged_by_content(target.image)
    _refuse_foreign_namespace(kubectl)
    print(f"{manifest.MANIFEST}: the settings are in ConfigMap {manifest.name_config()}")
    local.load(kubectl, image, target.load)
    namespace, *rest = manifest.render(kubectl.namespace, image).split("\n---\n")
    print(kubectl("apply", "--filename=-", given=namespace), end="")
    create_secret(kubectl)
    print(kubectl("apply", "--filename=-", given="\n---\n".join(rest)), end="")
    _wait(target)
    _prove(target, image)
    print(f"In the cluster the API is http://api.{kubectl.namespace}, and from here:")
    print(f"    make forward{target.again}")


def restart(target: Target) -> None:
    """Roll the pods over to the image just built, and prove that they run it."""
    kubectl = target.kubectl
    image = images.tagged_by_content(target.image)
    running = _image(kubectl)
    local.load(kubectl, image, target.load)
    if image == running:
        kubectl("rollout", "restart", "deployment/api")
    else:
        kubectl("set", "image", "deployment/api", f"migrate={image}", f"api={image}")
    print(f"{running} -> {image}")
    _wait(target)
    _prove(target, image)


def rollback(target: Target) -> None:
    """Roll the pods back to what they ran before."""
    kubectl = target.kubectl
    running = _image(kubectl)
    kubectl("rollout", "undo", "deployment/api")
    print(f"{running} -> {_image(kubectl)}")
    _wait(target)
    print(f"{len(kubectl.pods())} pods run {_image(kubectl)}")


def scale(target: Target) -> None:
    """Set the autoscaler's minimum to N, and wait for as many pods."""
    kubectl, number = target.kubectl, os.environ.get("N", "")
    autoscaler = _deployed(kubectl, "hpa")
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
    _wait(target)
    print(f"{len(kubectl.pods())} pods, and at least {number} from now on")


def status(target: Target) -> None:
    """Show what is there and what it complains of."""
    kubectl = target.kubectl
    _deployed(kubectl, "deployment")
    for kind in ("deployment,statefulset", "hpa", "pdb,service", "pods"):
        kubectl.show("get", kind, "--output=wide")
    kubectl.show("get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp")


def logs(target: Target) -> None:
    """Follow the logs of all pods."""
    _deployed(target.kubectl, "deployment")
    pods = (f"--selector={PART_OF}", "--all-containers", "--max-log-requests=50")
    sys.exit(target.kubectl.show("logs", *pods, "--follow", "--prefix", "--tail=20"))


def forward(target: Target) -> None:
    """Bring the service to a port of this machine."""
    port = os.environ.get("PORT") or "8000"
    if not port.isdecimal():
        raise ClusterError(f"PORT must be a number, not '{port}'.")
    _deployed(target.kubectl, "deployment")
    sys.exit(target.kubectl.show("port-forward", "service/api", f"{port}:http"))


def shell(target: Target) -> None:
    """Open a shell beside the service, in an ephemeral container of its first pod."""
    kubectl = target.kubectl
    _deployed(kubectl, "deployment")
    pods = kubectl.pods()
    if not pods:
        raise ClusterError("There is no pod to go into.")
    database = kubectl.get("statefulset", "db")["spec"]["template"]["spec"]["containers"][0]
    place = (pods[0]["metadata"]["name"], "--target=api", f"--image={database['image']}")
    terminal = ["--stdin", *(["--tty"] if sys.stdin.isatty() else [])]
    sys.exit(kubectl.show("debug", *place, "--profile=restricted", *terminal, "--", "sh"))


def undeploy(target: Target) -> None:
    """Remove everything but the data and their password."""
    kubectl = target.kubectl
    limit = f"--timeout={target.timeout:g}s"
    print(kubectl("delete", REMOVED, f"--selector={PART_OF}", limit), end="")
    print(
        "The database's volume and the Secret with its password are kept: make deploy, or destroy"
    )


def destroy(target: Target) -> None:
    """Remove the namespace with its data, after asking."""
    kubectl = target.kubectl
    if kubectl.get("namespace", kubectl.namespace) is None:
        raise ClusterError(f"There is no namespace {kubectl.namespace} on {kubectl.context}.")
    _refuse_foreign_namespace(kubectl)
    print(f"This removes namespace {kubectl.namespace} on {kubectl.context}, and all its data.")
    print("Type the namespace's name to go on: ", end="", flush=True)
    if sys.stdin.readline().strip() != kubectl.namespace:
        raise ClusterError("Nothing was removed.")
    kubectl("delete", "namespace", kubectl.namespace, f"--timeout={target.timeout:g}s")
    print("Removed.")


def _wait(target: Target) -> None:
    kubectl = target.kubectl

    def complete() -> bool:
        least = kubectl.get("hpa", "api")["spec"]["minReplicas"]
        return len(kubectl.pods()) >= least and all(rolled_out(kubectl, w) for w in WORKLOADS)

    wait(kubectl, "The rollout", complete, target.timeout)


def _prove(target: Target, image: str) -> None:
    number = prove(target.kubectl, image, images.digests(image))
    print(f"{number} pods run {image}")


def _deployed(kubectl: Kubectl, kind: str) -> Any:
    found = kubectl.get(kind, "api")
    if found is None:
        raise ClusterError(
            f"Nothing is deployed on {kubectl.context} in {kubectl.namespace}: make deploy"
        )
    return found


def _image(kubectl: Kubectl) -> str:
    """The image of the service's newest template."""
    template = _deployed(kubectl, "deployment")["spec"]["template"]
    image: str = template["spec"]["containers"][0]["image"]
    return image


def _refuse_foreign_namespace(kubectl: Kubectl) -> None:
    found = kubectl.get("namespace", kubectl.namespace)
    key, _, name = PART_OF.partition("=")
    if found and found["metadata"].get("labels", {}).get(key) != name:
        raise ClusterError(
            f"Namespace {kubectl.namespace} on {kubectl.context} is not {NAME}'s. Take another with"
            f" NAMESPACE=, or say that it is: kubectl label namespace {kubectl.namespace} {PART_OF}"
        )
