"""The image in the Docker engine, and the digests by which a node may know it."""

import json
import tarfile
from collections.abc import Iterator
from subprocess import PIPE, Popen

from .kubectl import ClusterError, run

JSON_LIMIT = 1 << 20  # bytes; a manifest has thousands, a layer millions


def tagged_by_content(name: str) -> str:
    """The tag of `name:latest` that no other image ever has. Raises ClusterError without one."""
    try:
        found = run("docker", "image", "inspect", "--format={{.Id}}", f"{name}:latest")
    except ClusterError as error:
        raise ClusterError(f"There is no image {name}:latest yet: make docker-build") from error
    tag = f"{name}:{found.removeprefix('sha256:')[:12]}"
    run("docker", "tag", found.strip(), tag)  # it may come from Compose or a plain docker build
    return tag


def digests(image: str) -> set[str]:
    """The digests of the image's index, manifests and configurations. Raises ClusterError.

    Engines and nodes go by one of them each, depending on their image store and on how the image
    came: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
    """
    known = {run("docker", "image", "inspect", "--format={{.Id}}", image).strip()}
    with Popen(["docker", "save", image], stdout=PIPE) as saving:
        try:
            with tarfile.open(fileobj=saving.stdout, mode="r|") as archive:
                for member in archive:
                    content = archive.extractfile(member) if member.size < JSON_LIMIT else None
                    known.update(_named_in(content.read()) if content else ())
        except tarfile.ReadError as error:
            raise ClusterError(f"docker save {image} failed: {error}") from error
    return known


def _named_in(blob: bytes) -> Iterator[str]:
    """The digests in an index or a manifest; none in anything else."""
    try:
        document = json.loads(blob)
    except ValueError:
        return
    if isinstance(document, dict):
        yield from (each["digest"] for each in document.get("manifests", []))
        if "layers" in document:
            yield document["config"]["digest"]
