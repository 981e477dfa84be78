"""Loading an image into a node that is a container, as with kind, k3d and Docker Desktop."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from python_on_whales import Container, DockerClient

from tests.container.conftest import command_succeeds, python_base_image
from tests.docker_session import LABELS, SESSION_NAME
from tools.cluster import images
from tools.cluster.image_loading import load_image
from tools.cluster.kubectl import ClusterError, Kubectl
from tools.dev.servers import wait_until

NODE_NAME = f"{SESSION_NAME}-control-plane"
DOCKERFILE = f"""FROM {python_base_image()}
RUN apt-get update && apt-get install -y --no-install-recommends containerd
CMD ["containerd"]
"""


@pytest.fixture
def node(docker: DockerClient, image: str, tmp_path: Path) -> Iterator[Container]:
    """A container that runs containerd, which does not have the images of the Docker engine."""
    tag = f"{SESSION_NAME}-node"
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    docker.build(tmp_path, tags=tag, labels=LABELS, progress=False)
    container = docker.run(
        tag,
        name=NODE_NAME,
        detach=True,
        labels=LABELS,
        privileged=True,
        tmpfs=["/run", "/var/lib/containerd"],
    )
    try:
        version = ["ctr", "version"]
        wait_until(lambda: command_succeeds(container, version), 30, "containerd's start")
        yield container
    finally:
        container.remove(force=True, volumes=True)


@pytest.fixture
def kubectl(monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    """A kubectl that reports a kind cluster with this node."""
    node_object = {
        "metadata": {"name": NODE_NAME, "labels": {}},
        "spec": {"providerID": f"kind://docker/test/{NODE_NAME}"},
        "status": {"nodeInfo": {"containerRuntimeVersion": "containerd://2.1.1"}},
    }
    monkeypatch.setattr(Kubectl, "get_all", lambda *_: [node_object])
    return Kubectl("kind-test", "any")


def test_an_image_is_loaded_into_the_node_under_its_tag_and_a_known_digest(
    node: Container, kubectl: Kubectl, image: str
) -> None:
    tag = images.tag_by_content(image)
    load_image(kubectl, tag)
    table = str(node.execute(["ctr", "--namespace=k8s.io", "images", "list"]))
    [row] = [line for line in table.splitlines() if line.startswith("docker.io/library/")]
    name, _, digest, *_ = row.split()
    assert name == f"docker.io/library/{tag}"
    assert digest in images.read_digests(tag)


def test_loading_into_a_missing_node_is_an_error(
    node: Container, kubectl: Kubectl, image: str
) -> None:
    node.remove(force=True)
    with pytest.raises(ClusterError, match="docker failed with exit code 1"):
        load_image(kubectl, image)
