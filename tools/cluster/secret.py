"""The Secret that k8s.yaml names: made once, and never written to a file."""

import json
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any

from fastapi_k8s import NAME

from .kubectl import PART_OF, ClusterError, Kubectl


def contents(password: str) -> dict[str, str]:
    """What the Secret holds: the service's setting, and what PostgreSQL's image reads."""
    return {
        "DATABASE_URL": f"postgresql://app:{password}@db:5432/app",
        "POSTGRES_PASSWORD": password,
    }


def create_secret(kubectl: Kubectl) -> None:
    """Make the Secret with a random password, or keep the one that is there.

    Raises ClusterError if it is gone but the data are not: PostgreSQL takes a password only with
    an empty volume, so a new one would lock everybody out.
    """
    if kubectl.get("secret", NAME):
        return
    claim = kubectl.get("pvc", "data-db-0")
    if claim and not _waits_for_the_first_time(kubectl, claim):
        raise ClusterError(
            f"The database's volume is there, but Secret {NAME} with its password is gone."
            " Restore it, or begin anew: make destroy"
        )
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME, "labels": dict([PART_OF.split("=")])},
        "stringData": contents(token_hex(24)),
    }
    print(kubectl("create", "--filename=-", given=json.dumps(secret)), end="")


def _waits_for_the_first_time(kubectl: Kubectl, claim: Any) -> bool:
    """Whether PostgreSQL's first pod still waits, as when k8s.yaml was applied by itself."""
    pod = kubectl.get("pod", "db-0")
    if not pod:
        return False
    apart = _created(pod) - _created(claim)
    statuses = pod["status"].get("containerStatuses", [])
    started = any(each["restartCount"] or "waiting" not in each["state"] for each in statuses)
    return apart < timedelta(minutes=1) and not started


def _created(found: Any) -> datetime:
    return datetime.fromisoformat(found["metadata"]["creationTimestamp"])
