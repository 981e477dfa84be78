"""The image in the Docker engine: its content-addressed tag, and its digests."""

import json
import tarfile
from collections.abc import Iterator
from subprocess import PIPE, Popen

from .kubectl import ClusterError, run

MAX_MANIFEST_BYTES = 1 << 20
"""Larger files of an image archive are layers. A manifest has a few thousand bytes."""


def tag_by_content(name: str) -> str:
    """Tag `name:latest` with twelve digits of the image's ID, and return the new tag.

    Raises ClusterError if there is no such image.
    """
    try:
        image_id = run("docker", "image", "inspect", "--format={{.Id}}", f"{name}:latest").strip()
    except ClusterError as error:
        raise ClusterError(f"There is no image {name}:latest. Run: make docker-build") from error
    tag = f"{name}:{image_id.removeprefix('sha256:')[:12]}"
    # `make docker-build` has set this tag already; Compose and a plain `docker build` have not.
    run("docker", "tag", image_id, tag)
    return tag


def read_digests(image: str) -> set[str]:
    """Return the digests of the image's indexes, manifests and configurations.

    A node reports one of them, depending on its container runtime, on the image store and on the
    way in which the image was loaded:
    https://github.com/opencontainers/image-spec/blob/main/image-layout.md
    Raises ClusterError if the image cannot be read.
    """
    digests = {run("docker", "image", "inspect", "--format={{.Id}}", image).strip()}
    with Popen(["docker", "save", image], stdout=PIPE) as save:
        try:
            with tarfile.open(fileobj=save.stdout, mode="r|") as archive:
                for member in archive:
                    digests.update(_read_member(archive, member))
        except tarfile.ReadError as error:
            raise ClusterError(f"docker save {image} failed: {error}") from error
    return digests


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[str]:
    """Yield the digests that a file of the image archive refers to."""
    if member.size >= MAX_MANIFEST_BYTES:
        return
    file = archive.extractfile(member)
    if file is None:  # a directory
        return
    yield from _parse_digests(file.read())


def _parse_digests(blob: bytes) -> Iterator[str]:
    """Yield the digests in an index or a manifest, and none for any other content."""
    try:
        document = json.loads(blob)
    except ValueError:
        return
    if not isinstance(document, dict):
        return
    for manifest in document.get("manifests", []):
        yield manifest["digest"]
    if "layers" in document:
        yield document["config"]["digest"]
