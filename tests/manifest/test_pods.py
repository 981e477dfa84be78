"""The pods: locked down, probed, and given the time that they need."""

import re
from typing import Any

import pytest

from fastapi_k8s.main import create_app
from fastapi_k8s.server import Worker
from tests.checkout import PROJECT
from tests.conftest import MakeSettings
from tests.manifest.conftest import containers, find, pods

LAST_ANSWERS = 1.0
"""Seconds: twice the half second in docs/decisions/0009-drain-in-the-worker.md."""
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"}
VOLUMES |= {"projected", "secret"}
EACH = pytest.mark.parametrize(("pod", "container"), containers())


@EACH
def test_every_container_passes_pod_security_restricted(pod: Any, container: Any) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    context = {**pod["securityContext"], **container["securityContext"]}
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    forbidden = {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"}
    assert not forbidden & pod.keys()
    assert not {"privileged", "procMount", "windowsOptions"} & context.keys()
    assert not any("hostPort" in port for port in container.get("ports", []))
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= VOLUMES


@EACH
def test_every_container_has_a_read_only_root_and_no_way_to_kubernetes(
    pod: Any, container: Any
) -> None:
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == find("ServiceAccount")["metadata"]["name"]
    assert pod["enableServiceLinks"] is False
    assert find("ServiceAccount")["automountServiceAccountToken"] is False


@EACH
def test_every_container_has_requests_and_limits_but_for_the_cpu(pod: Any, container: Any) -> None:
    del pod
    resources = container["resources"]
    assert resources["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
    assert resources["limits"].keys() == {"memory", "ephemeral-storage"}


@EACH
def test_every_mount_is_of_a_volume_and_every_volume_in_memory_or_on_disk_has_an_end(
    pod: Any, container: Any
) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claimed = {each["metadata"]["name"] for each in claims()}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys() | claimed
    for volume in volumes.values():
        assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": None})


def claims() -> list[Any]:
    templates: list[Any] = find("StatefulSet")["spec"]["volumeClaimTemplates"]
    return templates


def test_the_user_is_the_image_s() -> None:
    user = re.findall(r"^USER (\d+):(\d+)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    context = pods()["api"]["spec"]["securityContext"]
    assert {(str(context["runAsUser"]), str(context["runAsGroup"]))} == set(user)


def test_the_probes_ask_paths_and_ports_that_the_service_has(make_settings: MakeSettings) -> None:
    served = create_app(make_settings()).openapi()["paths"]
    (container,) = pods()["api"]["spec"]["containers"]
    (port,) = container["ports"]
    listens = re.search(r"^\s+PORT=(\d+) ", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    assert listens
    assert port["containerPort"] == int(listens[1])
    for kind in ("startup", "readiness", "liveness"):
        asked = container[f"{kind}Probe"]["httpGet"]
        assert "get" in served[asked["path"]]
        assert asked["port"] == port["name"]


def test_only_readiness_asks_the_database() -> None:
    (container,) = pods()["api"]["spec"]["containers"]
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness")}
    assert set(paths.values()) == {"/health"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"


@pytest.mark.parametrize("name", ["api", "db", "redis"])
def test_liveness_is_the_most_patient_and_readiness_the_quickest(name: str) -> None:
    (container,) = pods()[name]["spec"]["containers"]
    patience = {
        kind: container[f"{kind}Probe"]["periodSeconds"]
        * container[f"{kind}Probe"]["failureThreshold"]
        for kind in ("startup", "readiness", "liveness")
    }
    assert patience["readiness"] < patience["liveness"]
    assert patience["readiness"] < patience["startup"]


def test_a_pod_has_the_time_to_drain_and_to_finish_what_is_in_flight() -> None:
    drain = float(find("ConfigMap")["data"]["DRAIN_SECONDS"])
    needed = drain + LAST_ANSWERS + Worker.CONFIG_KWARGS["timeout_graceful_shutdown"]
    assert drain >= 3, "a Service's rules follow a pod's state by up to 3 s"
    assert pods()["api"]["spec"]["terminationGracePeriodSeconds"] > needed


def test_the_pod_tells_its_logs_who_it_is() -> None:
    spec = pods()["api"]["spec"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        told = {
            each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container["env"]
        }
        assert told == {
            "POD_NAME": "metadata.name",
            "POD_NAMESPACE": "metadata.namespace",
            "NODE_NAME": "spec.nodeName",
        }
