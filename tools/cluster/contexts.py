"""Choose the kubectl context, and refuse one that is not known to be a local cluster."""

import json
import re

from .kubectl import ClusterError, run

LOCAL_CONTEXT = re.compile(
    "docker-desktop|docker-for-desktop|kind-.+|minikube|k3d-.+|rancher-desktop|colima(-.+)?|orbstack"
)


def choose_context(requested_context: str) -> str:
    """Return the requested context or, if it is empty, the current one.

    Raises ClusterError if the current context is not known to be local: nobody should deploy to
    a shared cluster because kubectl happens to point to it.
    """
    if requested_context:
        return requested_context
    current = run("kubectl", "config", "current-context").strip()
    if LOCAL_CONTEXT.fullmatch(current) or _is_minikube_profile(current):
        return current
    raise ClusterError(
        f"The current context is {current}, which is not known to be a local cluster."
        f" To use it anyway, name it: CONTEXT={current}"
    )


def _is_minikube_profile(context: str) -> bool:
    """Whether minikube created the context. A context has the name of its minikube profile."""
    output = run("kubectl", "config", "view", "--minify", f"--context={context}", "--output=json")
    (entry,) = json.loads(output)["contexts"]
    for extension in entry["context"].get("extensions", []):
        if extension.get("extension", {}).get("provider") == "minikube.sigs.k8s.io":
            return True
    return False
