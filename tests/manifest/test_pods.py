"""The pods are locked down, probed, and have enough time to shut down."""

import re

import pytest

from fastapi_k8s.main import create_app
from fastapi_k8s.server.worker import STOP_SECONDS
from tests.conftest import MakeSettings
from tests.manifest.conftest import Manifest, container_parameters, each_manifest
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

each_container = pytest.mark.parametrize(
    ("manifest", "pod_spec", "container"), container_parameters()
)


@each_container
def test_every_container_meets_the_restricted_pod_security_standard(
    manifest: Manifest, pod_spec: KubernetesObject, container: KubernetesObject
) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    del manifest
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
    manifest: Manifest, pod_spec: KubernetesObject, container: KubernetesObject
) -> None:
    service_account = manifest.find("ServiceAccount")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod_spec["automountServiceAccountToken"] is False
    assert pod_spec["serviceAccountName"] == service_account["metadata"]["name"]
    assert pod_spec["enableServiceLinks"] is False
    assert service_account["automountServiceAccountToken"] is False


@each_container
def test_every_container_has_requests_and_limits_but_no_cpu_limit(
    manifest: Manifest, pod_spec: KubernetesObject, container: KubernetesObject
) -> None:
    del manifest, pod_spec
    resources = container["resources"]
    assert resources["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
    assert resources["limits"].keys() == {"memory", "ephemeral-storage"}


@each_container
def test_every_mount_has_a_volume_and_every_empty_dir_has_a_size_limit(
    manifest: Manifest, pod_spec: KubernetesObject, container: KubernetesObject
) -> None:
    volumes = {volume["name"]: volume for volume in pod_spec["volumes"]}
    claim_names: set[str] = set()
    for stateful_set in manifest.find_all("StatefulSet"):
        for claim in stateful_set["spec"]["volumeClaimTemplates"]:
            claim_names.add(claim["metadata"]["name"])
    mounted_names = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted_names <= volumes.keys() | claim_names
    for volume in volumes.values():
        if "emptyDir" in volume:
            assert "sizeLimit" in volume["emptyDir"]


@each_manifest
def test_the_user_is_that_of_the_image(manifest: Manifest) -> None:
    dockerfile = (PROJECT / "Dockerfile").read_text()
    users = re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    context = manifest.pod_templates()["api"]["spec"]["securityContext"]
    assert set(users) == {(str(context["runAsUser"]), str(context["runAsGroup"]))}


@each_manifest
def test_every_probe_uses_a_path_and_a_port_of_the_api(
    manifest: Manifest, make_settings: MakeSettings
) -> None:
    routes = create_app(make_settings()).openapi()["paths"]
    dockerfile = (PROJECT / "Dockerfile").read_text()
    image_port = re.search(r"^\s+PORT=(\d+) ", dockerfile, re.MULTILINE)
    assert image_port
    (container,) = manifest.pod_templates()["api"]["spec"]["containers"]
    (container_port,) = container["ports"]
    assert container_port["containerPort"] == int(image_port[1])
    for probe in PROBES:
        http_get = container[probe]["httpGet"]
        assert "get" in routes[http_get["path"]]
        assert http_get["port"] == container_port["name"]


@each_manifest
def test_only_the_readiness_probe_depends_on_the_database(manifest: Manifest) -> None:
    (container,) = manifest.pod_templates()["api"]["spec"]["containers"]
    paths = {probe: container[probe]["httpGet"]["path"] for probe in PROBES}
    assert paths == {
        "startupProbe": "/health",
        "readinessProbe": "/ready",
        "livenessProbe": "/health",
    }


@each_manifest
def test_readiness_fails_before_liveness_and_startup(manifest: Manifest) -> None:
    for template in manifest.pod_templates().values():
        (container,) = template["spec"]["containers"]
        seconds_until_failure = {
            probe: container[probe]["periodSeconds"] * container[probe]["failureThreshold"]
            for probe in PROBES
        }
        assert seconds_until_failure["readinessProbe"] < seconds_until_failure["livenessProbe"]
        assert seconds_until_failure["readinessProbe"] < seconds_until_failure["startupProbe"]


@each_manifest
def test_a_pod_has_time_to_drain_and_to_finish_requests_in_flight(manifest: Manifest) -> None:
    drain_seconds = float(manifest.find("ConfigMap")["data"]["DRAIN_SECONDS"])
    assert drain_seconds >= 3, "nodes may send requests up to 3 s after a pod was deleted"
    grace_period = manifest.pod_templates()["api"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_period > drain_seconds + STOP_SECONDS + 1


@each_manifest
def test_the_api_gets_its_pod_namespace_and_node_for_its_log_lines(manifest: Manifest) -> None:
    for container in manifest.api_containers():
        field_paths = {
            each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container["env"]
        }
        assert field_paths == {
            "POD_NAME": "metadata.name",
            "POD_NAMESPACE": "metadata.namespace",
            "NODE_NAME": "spec.nodeName",
        }
