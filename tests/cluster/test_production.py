"""deploy/components on a cluster."""

import json
from pathlib import Path

from tools.checkout import PROJECT
from tools.cluster.ephemeral import EphemeralDeployment
from tools.cluster.kubectl import ClusterError, Kubectl
from tools.dev.servers import wait_until

LIMIT_RANGE = PROJECT / "deploy" / "components" / "cpu-limits" / "limit-range.yaml"


def test_a_quota_of_cpu_limits_is_met_with_the_default_of_the_component(
    deployment: EphemeralDeployment, tmp_path: Path
) -> None:
    """A pod is created as a dry run, so that the running ones are not replaced."""
    kubectl = deployment.kubectl
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "quota"},
        "spec": kubectl.get_existing("deployment", "api")["spec"]["template"]["spec"],
    }
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    create_pod = ("create", "--dry-run=server", f"--filename={tmp_path}/pod.json")
    kubectl.run("create", "quota", "compute", "--hard=limits.cpu=100")
    try:
        wait_until(lambda: is_refused(kubectl, create_pod), 30, "the quota")
        kubectl.run("apply", f"--filename={LIMIT_RANGE}")
        wait_until(lambda: not is_refused(kubectl, create_pod), 30, "the default limit")
    finally:
        kubectl.run("delete", "quota", "compute")
        kubectl.run("delete", "--ignore-not-found", f"--filename={LIMIT_RANGE}")


def is_refused(kubectl: Kubectl, command: tuple[str, ...]) -> bool:
    """Whether the quota refuses the pod with the message that docs/operations.md names."""
    try:
        kubectl.run(*command)
    except ClusterError as error:
        return "failed quota: compute: must specify limits.cpu for: api,migrate" in str(error)
    return False
