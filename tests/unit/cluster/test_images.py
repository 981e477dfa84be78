"""An image is identified by every digest that a node may report for it."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.unit.cluster.conftest import IMAGE, FakeCommands, make_digest
from tools.cluster.images import read_digests
from tools.cluster.kubectl import ClusterError


def make_archive(files: dict[str, object]) -> bytes:
    """Return a tar archive, as `docker save` writes it. Content that is not bytes becomes JSON."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_the_digests_of_indexes_manifests_and_configurations_are_read(
    commands: FakeCommands, tmp_path: Path
) -> None:
    """Docker with containerd's image store saves an index within an index."""
    index, manifest, config = "b" * 64, "c" * 64, "d" * 64
    content = make_archive(
        {
            f"blobs/sha256/{index}": {"manifests": [{"digest": make_digest("c")}]},
            f"blobs/sha256/{manifest}": {"config": {"digest": make_digest("d")}, "layers": []},
            f"blobs/sha256/{config}": {"config": {"Env": []}, "rootfs": {"diff_ids": []}},
            f"blobs/sha256/{'e' * 64}": b"\x1f\x8b\x08layer",
            "index.json": {"manifests": [{"digest": make_digest("b")}]},
            "manifest.json": [{"Config": f"blobs/sha256/{config}"}],
        }
    )
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    inspect = f'echo "{make_digest("b")}"'
    commands.add("docker", f'case $1 in save) cat "{archive}" ;; *) {inspect} ;; esac')
    assert read_digests(IMAGE) == {make_digest("b"), make_digest("c"), make_digest("d")}


def test_an_image_that_cannot_be_saved_is_an_error(commands: FakeCommands) -> None:
    inspect = f'echo "{make_digest("b")}"'
    commands.add("docker", f"case $1 in save) exit 1 ;; *) {inspect} ;; esac")
    with pytest.raises(ClusterError, match=f"docker save {IMAGE} failed"):
        read_digests(IMAGE)
