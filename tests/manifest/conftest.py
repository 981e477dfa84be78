"""The manifests: k8s.yaml as the file stands in the checkout, and deploy/production as rendered.

The overlay is rendered twice: as it stands, and with all components, which a user uncomments.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from tools.checkout import PROJECT, run_command
from tools.cluster.kubectl import KubernetesObject

READINESS_CONNECTIONS = 1
"""The connection of /ready, which each process has in addition to its pool."""

COMMENTED_COMPONENT = re.compile(r"^# (- \.\./components/.+)$", re.MULTILINE)
COMMENTED_SETTING = re.compile(r"^# ([A-Z_]+=.+)$", re.MULTILINE)
COMMENTED_RULE = re.compile(r"^    # (- to: .+|  ports: .+)$", re.MULTILINE)
REDIS_IN_CLUSTER = re.compile(r"^REDIS_URL=.*\n", re.MULTILINE)


@dataclass(frozen=True)
class Manifest:
    """The objects that are applied together."""

    name: str
    objects: list[KubernetesObject]

    def __str__(self) -> str:
        """The name, for the identifiers of pytest's parameters."""
        return self.name

    def find_all(self, kind: str) -> list[KubernetesObject]:
        """Return the objects of this kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def find(self, kind: str, name: str | None = None) -> KubernetesObject:
        """Return the object of this kind and name. Without a name, there has to be only one."""
        (match,) = (
            each for each in self.find_all(kind) if name in {None, each["metadata"]["name"]}
        )
        return match

    def pod_templates(self) -> dict[str, KubernetesObject]:
        """Return the pod templates of all workloads, by the workload's name."""
        return {
            each["metadata"]["name"]: each["spec"]["template"]
            for each in [*self.find_all("Deployment"), *self.find_all("StatefulSet")]
        }

    def api_containers(self) -> list[KubernetesObject]:
        """Return the API's init container and container."""
        spec = self.pod_templates()["api"]["spec"]
        return [*spec["initContainers"], *spec["containers"]]


def read_manifests() -> list[Manifest]:
    """Return the manifests. Without kubectl, which renders the overlay, only k8s.yaml."""
    local = Manifest("k8s.yaml", list(yaml.safe_load_all((PROJECT / "k8s.yaml").read_text())))
    if not shutil.which("kubectl"):
        return [local]
    return [
        local,
        Manifest("production", render(PROJECT / "deploy" / "production")),
        Manifest("production-with-all-components", render_with_all_components()),
    ]


def render(folder: Path) -> list[KubernetesObject]:
    """Return the objects of an overlay."""
    return list(yaml.safe_load_all(run_command(["kubectl", "kustomize", str(folder)])))


def render_with_all_components() -> list[KubernetesObject]:
    """Return the objects of deploy/production with all that a user can uncomment."""
    with TemporaryDirectory() as copy:
        shutil.copytree(PROJECT / "deploy", copy, dirs_exist_ok=True)
        kustomization = Path(copy, "production", "kustomization.yaml")
        text, count = COMMENTED_COMPONENT.subn(r"\1", kustomization.read_text())
        assert count == len(list(Path(copy, "components").iterdir()))
        kustomization.write_text(text)
        settings = kustomization.with_name("settings.env")
        text = COMMENTED_SETTING.sub(r"\1", settings.read_text())
        settings.write_text(REDIS_IN_CLUSTER.sub("", text))
        policy = kustomization.with_name("network-policy.yaml")
        policy.write_text(COMMENTED_RULE.sub(r"    \1", policy.read_text()))
        return render(kustomization.parent)


MANIFESTS = read_manifests()
LOCAL, *OVERLAYS = MANIFESTS

each_manifest = pytest.mark.parametrize("manifest", MANIFESTS, ids=str)


def object_parameters() -> list[object]:
    """Return a pytest parameter with the manifest and the object, for every object."""
    parameters: list[object] = []
    for manifest in MANIFESTS:
        for each in manifest.objects:
            identifier = f"{manifest}-{each['kind']}-{each['metadata']['name']}"
            parameters.append(pytest.param(manifest, each, id=identifier))
    return parameters


def container_parameters() -> list[object]:
    """Return a pytest parameter with manifest, pod spec and container, for every container."""
    parameters: list[object] = []
    for manifest in MANIFESTS:
        for workload, template in manifest.pod_templates().items():
            spec = template["spec"]
            for container in [*spec.get("initContainers", []), *spec["containers"]]:
                identifier = f"{manifest}-{workload}-{container['name']}"
                parameters.append(pytest.param(manifest, spec, container, id=identifier))
    return parameters


def max_connections_of_pods(manifest: Manifest, max_replicas: int) -> int:
    """Return how many connections the pods open at most, during a rolling update.

    These are the new pods, one more for the surge, and as many old pods that still drain. A pod
    that migrates has one connection and no pool yet, so it needs fewer than one that serves.
    """
    strategy = manifest.find("Deployment", "api")["spec"]["strategy"]
    max_surge: int = strategy["rollingUpdate"]["maxSurge"]
    settings = manifest.find("ConfigMap")["data"]
    processes = int(settings.get("WEB_CONCURRENCY", 1))
    per_process = int(settings["DATABASE_POOL_SIZE"]) + READINESS_CONNECTIONS
    return (max_replicas + max_surge + max_replicas) * processes * per_process
