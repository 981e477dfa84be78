"""The Secret that k8s.yaml refers to. It is created once and never written to a file."""

import json
from datetime import datetime, timedelta
from secrets import token_hex

from fastapi_k8s import NAME

from .kubectl import PART_OF_LABEL, ClusterError, Kubectl, KubernetesObject

PASSWORD_BYTES = 24
SAME_START = timedelta(minutes=1)
"""A StatefulSet creates its first pod within seconds after the volume claim."""


def secret_data(password: str) -> dict[str, str]:
    """Return the Secret's keys and values: the API's setting and the database's password."""
    return {
        "DATABASE_URL": f"postgresql://app:{password}@db:5432/app",
        "POSTGRES_PASSWORD": password,
    }


def ensure_secret(kubectl: Kubectl) -> None:
    """Create the Secret with a random password, or keep the existing one.

    Raises ClusterError if the Secret does not exist but the database's volume does: PostgreSQL
    reads the password only when it initializes an empty volume, so a new password would be
    rejected.
    """
    if kubectl.get("secret", NAME):
        return
    claim = kubectl.get("pvc", "data-db-0")
    if claim and not _awaits_first_start(kubectl, claim):
        raise ClusterError(
            f"The database's volume exists, but Secret {NAME} with its password does not."
            " Restore the Secret, or delete the data: make destroy"
        )
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME, "labels": {PART_OF_LABEL: NAME}},
        "stringData": secret_data(token_hex(PASSWORD_BYTES)),
    }
    print(kubectl.run("create", "--filename=-", stdin=json.dumps(secret)), end="")


def _awaits_first_start(kubectl: Kubectl, claim: KubernetesObject) -> bool:
    """Whether PostgreSQL has never started, as after `kubectl apply` without the Secret."""
    pod = kubectl.get("pod", "db-0")
    if pod is None:
        return False
    if _creation_time(pod) - _creation_time(claim) >= SAME_START:
        return False  # not the first pod that uses the volume
    for status in pod["status"].get("containerStatuses", []):
        if status["restartCount"] > 0 or "waiting" not in status["state"]:
            return False
    return True


def _creation_time(kubernetes_object: KubernetesObject) -> datetime:
    return datetime.fromisoformat(kubernetes_object["metadata"]["creationTimestamp"])
