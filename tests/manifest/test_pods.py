"""The pods are locked down, probed, and have enough time to shut down."""

import re

import pytest

from fastapi_k8s.main import create_app
from fastapi_k8s.server.worker import GRACEFUL_SHUTDOWN_SECONDS, LAST_REQUESTS_SECONDS
from tests.conftest import MakeSettings
from tests.manifest.conftest import (
    api_containers,
    container_parameters,
    find_object,
    pod_templates,
)
from tools.checkout import PROJECT
from tools.cluster.kubectl import KubernetesObject

RESTRICTED_VOLUME_TYPES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")

each_container = pytest.mark.parametrize(("pod_spec", "container"), container_parameters())


@each_container
def test_every_container_meets_the_restricted_pod_security_standard(
    pod_spec: KubernetesObject, container: KubernetesObject
) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    context = {**pod_spec["securityContext"], **container["securityContext"]}
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    forbidden_in_pod = {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"}
    assert forbidden_in_pod.isdisjoint(pod_spec)
    assert {"privileged", "procMount", "windowsOptions"}.isdisjoint(context)
    assert not any("hostPort" in port for port in container.get("ports", []))
    volume_types: set[str] = set()
    for volume in pod_spec["volumes"]:
        volume_types |= volume.keys() - {"name"}
    assert volume_types <= RESTRICTED_VOLUME_TYPES


@each_container
def test_every_container_has_a_read_only_root_and_no_token(
    pod_spec: KubernetesObject, container: KubernetesObject
) -> None:
    service_account = find_object("ServiceAccount")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod_spec["automountServiceAccountToken"] is False
    assert pod_spec["serviceAccountName"] == service_account["metadata"]["name"]
    assert pod_spec["enableServiceLinks"] is False
    assert service_account["automountServiceAccountToken"] is False


@each_container
def test_every_container_has_requests_and_limits_but_no_cpu_limit(
    pod_spec: KubernetesObject, container: KubernetesObject
) -> None:
    del pod_spec
    resources = container["resources"]
    assert resources["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
    assert resources["limits"].keys() == {"memory", "ephemeral-storage"}


@each_container
def test_every_mount_has_a_volume_and_every_empty_dir_has_a_size_limit(
    pod_spec: KubernetesObject, container: KubernetesObject
) -> None:
    volumes = {volume["name"]: volume for volume in pod_spec["volumes"]}
    claims = find_object("StatefulSet")["spec"]["volumeClaimTemplates"]
    claim_names = {claim["metadata"]["name"] for claim in claims}
    mounted_names = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted_names <= volumes.keys() | claim_names
    for volume in volumes.values():
        if "emptyDir" in volume:
            assert "sizeLimit" in volume["emptyDir"]


def test_the_user_is_that_of_the_image() -> None:
    dockerfile = (PROJECT / "Dockerfile").read_text()
    users = re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    context = pod_templates()["api"]["spec"]["securityContext"]
    assert set(users) == {(str(context["runAsUser"]), str(context["runAsGroup"]))}


def test_every_probe_uses_a_path_and_a_port_of_the_api(make_settings: MakeSettings) -> None:
    routes = create_app(make_settings()).openapi()["paths"]
    dockerfile = (PROJECT / "Dockerfile").read_text()
    image_port = re.search(r"^\s+PORT=(\d+) ", dockerfile, re.MULTILINE)
    assert image_port
    (container,) = pod_templates()["api"]["spec"]["containers"]
    (container_port,) = container["ports"]
    assert container_port["containerPort"] == int(image_port[1])
    for probe in PROBES:
        http_get = container[probe]["httpGet"]
        assert "get" in routes[http_get["path"]]
        assert http_get["port"] == container_port["name"]


def test_only_the_readiness_probe_depends_on_the_database() -> None:
    (container,) = pod_templates()["api"]["spec"]["containers"]
    paths = {probe: container[probe]["httpGet"]["path"] for probe in PROBES}
    assert paths == {
        "startupProbe": "/health",
        "readinessProbe": "/ready",
        "livenessProbe": "/health",
    }


@pytest.mark.parametrize("workload", ["api", "db", "redis"])
def test_readiness_fails_before_liveness_and_startup(workload: str) -> None:
    (container,) = pod_templates()[workload]["spec"]["containers"]
    seconds_until_failure = {
        probe: container[probe]["periodSeconds"] * container[probe]["failureThreshold"]
        for probe in PROBES
    }
    assert seconds_until_failure["readinessProbe"] < seconds_until_failure["livenessProbe"]
    assert seconds_until_failure["readinessProbe"] < seconds_until_failure["startupProbe"]


def test_a_pod_has_time_to_drain_and_to_finish_requests_in_flight() -> None:
    drain_seconds = float(find_object("ConfigMap")["data"]["DRAIN_SECONDS"])
    assert drain_seconds >= 3, "nodes may send requests up to 3 s after a pod was deleted"
    # The worker waits twice for the last requests (docs/decisions/0009-drain-in-the-worker.md).
    shutdown_seconds = drain_seconds + 2 * LAST_REQUESTS_SECONDS + GRACEFUL_SHUTDOWN_SECONDS
    assert pod_templates()["api"]["spec"]["terminationGracePeriodSeconds"] > shutdown_seconds


def test_the_api_gets_its_pod_namespace_and_node_for_its_log_lines() -> None:
    for container in api_containers():
        field_paths = {
            each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container["env"]
        }
        assert field_paths == {
            "POD_NAME": "metadata.name",
            "POD_NAMESPACE": "metadata.namespace",
            "NODE_NAME": "spec.nodeName",
        }
