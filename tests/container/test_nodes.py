"""How an image gets into a node that is a container, as kind's, k3d's and Docker Desktop's are."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from python_on_whales import Container, DockerClient

from tests.container.conftest import LABELS, RUN, base_image, succeeds
from tools.cluster import images
from tools.cluster.image_loading import load_image
from tools.cluster.kubectl import ClusterError, Kubectl
from tools.dev.servers import wait_until

NODE = f"{RUN}-control-plane"
DOCKERFILE = f"""FROM {base_image()}
RUN apt-get update && apt-get install -y --no-install-recommends containerd
CMD ["containerd"]
"""


@pytest.fixture
def node(docker: DockerClient, image: str, tmp_path: Path) -> Iterator[Container]:
    """A container with containerd, which knows nothing of the Docker engine's images."""
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    docker.build(tmp_path, tags=f"{RUN}-node", labels=LABELS, progress=False)
    container = docker.run(
        f"{RUN}-node",
        name=NODE,
        detach=True,
        labels=LABELS,
        privileged=True,
        tmpfs=["/run", "/var/lib/containerd"],
    )
    try:
        ready = ["ctr", "version"]
        wait_until(lambda: succeeds(container, ready), 30, "containerd's start")
        yield container
    finally:
        container.remove(force=True, volumes=True)


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    """A cluster of kind with that node, as kubectl would tell."""
    found = {
        "metadata": {"name": NODE, "labels": {}},
        "spec": {"providerID": f"kind://docker/test/{NODE}"},
        "status": {"nodeInfo": {"containerRuntimeVersion": "containerd://2.1.1"}},
    }
    monkeypatch.setattr(Kubectl, "get_all", lambda *_: [found])
    return Kubectl("kind-test", "any")


def test_an_image_is_on_the_node_afterwards_under_a_digest_that_proves_it(
    node: Container, kubectl: Kubectl, image: str
) -> None:
    tagged = images.tag_by_content(image)
    load_image(kubectl, tagged)
    listed = str(node.execute(["ctr", "--namespace=k8s.io", "images", "list"]))
    (line,) = (line for line in listed.splitlines() if line.startswith("docker.io/library/"))
    name, _, digest, *_ = line.split()
    assert name == f"docker.io/library/{tagged}"
    assert digest in images.read_digests(tagged)


def test_a_node_that_is_gone_is_an_error(node: Container, kubectl: Kubectl, image: str) -> None:
    node.remove(force=True)
    with pytest.raises(ClusterError, match="docker failed with exit code 1"):
        load_image(kubectl, image)
