"""Each type of local cluster gets the image with the command that its nodes understand."""

from pathlib import Path

import pytest

from tests.unit.cluster.conftest import IMAGE, KIND, FakeCommands, to_list
from tools.cluster.image_loading import CONTAINERD_IMPORT, import_commands, load_image
from tools.cluster.kubectl import ClusterError, Kubectl, KubernetesObject

DOCKER_EXEC = ("docker", "exec", "--interactive")
K3S_LABELS = {"node.kubernetes.io/instance-type": "k3s"}


def make_node(
    name: str, runtime: str, provider_id: str = "", labels: dict[str, str] | None = None
) -> KubernetesObject:
    """Return a node with the fields in which the types of clusters differ."""
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"providerID": provider_id} if provider_id else {},
        "status": {"nodeInfo": {"containerRuntimeVersion": runtime}},
    }


DESKTOP_NODE = "desktop-control-plane"
CLUSTERS = {
    "Docker Desktop, kubeadm": (
        "docker-desktop",
        [make_node("docker-desktop", "docker://29.1.3")],
        [],
    ),
    "Docker Desktop, kind": (
        "docker-desktop",
        [
            make_node(DESKTOP_NODE, "containerd://2.3.1", f"kind://docker/desktop/{DESKTOP_NODE}"),
            make_node(
                "desktop-worker", "containerd://2.3.1", "kind://docker/desktop/desktop-worker"
            ),
        ],
        [
            (*DOCKER_EXEC, DESKTOP_NODE, *CONTAINERD_IMPORT),
            (*DOCKER_EXEC, "desktop-worker", *CONTAINERD_IMPORT),
        ],
    ),
    "kind": (
        "kind-demo",
        [
            make_node(
                "demo-control-plane", "containerd://2.1.1", "kind://docker/demo/demo-control-plane"
            )
        ],
        [(*DOCKER_EXEC, "demo-control-plane", *CONTAINERD_IMPORT)],
    ),
    "minikube on Docker": (
        "minikube",
        [make_node("minikube", "docker://28.4.0", labels={"minikube.k8s.io/name": "minikube"})],
        [("minikube", "--profile=minikube", "image", "load", "-")],
    ),
    "minikube, two nodes and a profile": (
        "orders",
        [
            make_node("orders", "containerd://2.2.0", labels={"minikube.k8s.io/name": "orders"}),
            make_node(
                "orders-m02", "containerd://2.2.0", labels={"minikube.k8s.io/name": "orders"}
            ),
        ],
        [("minikube", "--profile=orders", "image", "load", "-")],
    ),
    "k3d": (
        "k3d-demo",
        [
            make_node(
                "k3d-demo-server-0",
                "containerd://2.1.5-k3s1.33",
                "k3s://k3d-demo-server-0",
                K3S_LABELS,
            ),
            make_node(
                "k3d-demo-agent-0",
                "containerd://2.1.5-k3s1.33",
                "k3s://k3d-demo-agent-0",
                K3S_LABELS,
            ),
        ],
        [
            (*DOCKER_EXEC, "k3d-demo-server-0", *CONTAINERD_IMPORT),
            (*DOCKER_EXEC, "k3d-demo-agent-0", *CONTAINERD_IMPORT),
        ],
    ),
    "Rancher Desktop, moby": (
        "rancher-desktop",
        [
            make_node(
                "lima-rancher-desktop",
                "docker://20.10.11",
                "k3s://lima-rancher-desktop",
                K3S_LABELS,
            )
        ],
        [],
    ),
    "Rancher Desktop, containerd": (
        "rancher-desktop",
        [
            make_node(
                "lima-rancher-desktop",
                "containerd://1.6.8",
                "k3s://lima-rancher-desktop",
                K3S_LABELS,
            )
        ],
        [("nerdctl", "--namespace=k8s.io", "load")],
    ),
    "Colima, docker": (
        "colima",
        [make_node("colima", "docker://27.4.0", "k3s://colima", K3S_LABELS)],
        [],
    ),
    "Colima, containerd and a profile": (
        "colima-work",
        [make_node("colima-work", "containerd://2.1.5-k3s1", "k3s://colima-work", K3S_LABELS)],
        [("colima", "--profile=work", "nerdctl", "--", "--namespace=k8s.io", "load")],
    ),
    "OrbStack": (
        "orbstack",
        [make_node("orbstack", "docker://28.5.2", "k3s://orbstack", K3S_LABELS)],
        [],
    ),
    "unknown": (
        "staging",
        [make_node("ip-10-0-0-7", "containerd://2.1.5-k3s1", "k3s://ip-10-0-0-7", K3S_LABELS)],
        [],
    ),
}
"""For each type of cluster: its context, its nodes as recorded, and the expected commands."""


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
def test_each_type_of_cluster_has_its_import_command(
    cluster: tuple[str, list[KubernetesObject], list[tuple[str, ...]]],
) -> None:
    context, nodes, expected_commands = cluster
    commands = import_commands(context, nodes)
    assert list(dict.fromkeys(commands)) == expected_commands


@pytest.fixture
def kind_commands(commands: FakeCommands) -> FakeCommands:
    """Fake commands with a kubectl that lists the nodes of a kind cluster."""
    _, nodes, _ = CLUSTERS["kind"]
    commands.add_responses("kubectl", {"get nodes": to_list(nodes)})
    return commands


def test_the_image_archive_is_streamed_into_the_node(
    kind_commands: FakeCommands, tmp_path: Path
) -> None:
    imported = tmp_path / "imported"
    script = f'case $1 in save) echo archive ;; exec) cat >"{imported}" ;; esac'
    kind_commands.add("docker", script)
    load_image(KIND, IMAGE)
    assert imported.read_text() == "archive\n"
    calls = [call for call in kind_commands.calls() if call.startswith("docker")]
    assert sorted(calls) == [
        "docker exec --interactive demo-control-plane ctr --namespace=k8s.io images import -",
        f"docker save {IMAGE}",
    ]


def test_a_failed_import_is_an_error(kind_commands: FakeCommands) -> None:
    message = "Error response from daemon: No such container: demo-control-plane"
    script = f'case $1 in save) echo archive ;; exec) echo "{message}" >&2; exit 1 ;; esac'
    kind_commands.add("docker", script)
    with pytest.raises(ClusterError, match="docker failed with exit code 1: no image was loaded"):
        load_image(KIND, IMAGE)


def test_a_failed_save_is_an_error_even_if_the_import_succeeds(kind_commands: FakeCommands) -> None:
    message = "Error response from daemon: reference does not exist"
    script = f'case $1 in save) echo "{message}" >&2; exit 1 ;; exec) cat ;; esac'
    kind_commands.add("docker", script)
    with pytest.raises(ClusterError, match="docker save failed with exit code 1: no image was"):
        load_image(KIND, IMAGE)


def test_without_the_command_of_the_cluster_the_message_names_it(commands: FakeCommands) -> None:
    _, nodes, _ = CLUSTERS["minikube on Docker"]
    commands.add_responses("kubectl", {"get nodes": to_list(nodes)})
    commands.add("docker", "echo archive")
    with pytest.raises(ClusterError, match="minikube is not installed"):
        load_image(Kubectl("minikube", "fastapi-k8s"), IMAGE)


def test_the_user_s_loader_is_called_with_the_image_and_may_contain_spaces(
    commands: FakeCommands, tmp_path: Path
) -> None:
    arguments = tmp_path / "arguments"
    commands.add("my loader", f'echo "$@" >"{arguments}"')
    load_image(KIND, IMAGE, "'my loader' --into somewhere")
    assert arguments.read_text() == f"--into somewhere {IMAGE}\n"
    assert not any(call.startswith("kubectl") for call in commands.calls())


def test_a_failed_loader_of_the_user_is_an_error() -> None:
    with pytest.raises(ClusterError, match="IMAGE_LOADER failed with exit code 3"):
        load_image(KIND, IMAGE, "exit 3; echo")
