"""Every version in the repository is in a place that Renovate reads, or is not a version to update.

The patterns of Renovate's own managers were compared with what Renovate 44 extracts
(`renovate --platform=local --dry-run=extract`).
"""

import json
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from tools.checkout import PROJECT, copy_checkout

CONFIG = json.loads((PROJECT / ".github" / "renovate.json").read_text())

VERSION = re.compile(r"(?<![\w.%])(?:[a-z]+-)?v?\d+(?:\.\d+){1,2}(?![.\d])|(?<=:)\d+-[a-z]\w*")
"""Two or three numbers, or the tag of an image such as `18-alpine`; not an address or `%5.1f`."""

VERSION_IN_PYTHON = re.compile(r"(?<!\w)v\d+\.\d+\.\d+(?![\w.])|(?<=:)\d+-[a-z]\w*")
"""Only forms that Python code does not use for anything else."""

COMMENT = re.compile(r"(^|\s)#.*$", re.MULTILINE)
OTHER_SUFFIXES = {".lua", ".mako", ".md", ".png", ".svg"}
OTHER_FILES = {"LICENSE", "docs/openapi.json", "uv.lock"}
"""Prose, pictures, and what a command writes."""


class Place(NamedTuple):
    """Regular expressions for the files and the text that contain a version."""

    files: str
    text: str


RENOVATE_READS = {
    "dockerfile": Place(r"(^|/)Dockerfile[^/]*$", r"^FROM \S+|--from=\S+|--mount=from=[^,\s]+"),
    "docker-compose": Place(r"(^|/)docker-compose[^/]*\.yml$", r"^\s+image: \S+"),
    "kubernetes": Place(r"^deploy/.+\.yaml$", r"^\s+image: \S+"),
    "github-actions": Place(
        r"^\.github/workflows/.+\.yml$",
        r"runs-on: \S+|uses: aquasecurity/setup-trivy@.+\s+with:\s+version: \S+|uses: .+",
    ),
    "pep621": Place(r"^pyproject\.toml$", r'"[a-z][\w.\[\],-]*[<>=]=?[^"]*"'),
}
"""What Renovate's managers read in this repository."""

NOT_TO_UPDATE = {
    "the version of this project": Place(
        r"\.(toml|yaml)$", r"^version = .+|app\.kubernetes\.io/version: \S+"
    ),
    "the oldest Python and uv that are supported": Place(
        r"^pyproject\.toml$", r"^(requires-python|required-version) = .+"
    ),
    "the oldest Python, in a message": Place(
        r"^tools/dev/install-uv\.sh$", r"Python 3\.11 or newer"
    ),
    "every Python that is supported (test_workflows.py)": Place(
        r"^\.github/workflows/ci\.yml$", r"^ +python: \[.+\]$"
    ),
    "the oldest Kubernetes that is supported": Place(
        r"^deploy/base/k8s\.yaml$", r"pod-security\.kubernetes\.io/\w+-version: \S+"
    ),
    "numbers in queries of Prometheus": Place(r"^deploy/observability/(alerts|dashboard)", r".+"),
    "the format of a file": Place(r"^\.vscode/launch\.json$", r'^  "version": .+'),
    "what a test passes to the code": Place(r"^tests/(template/)?unit/.+\.py$", r".+"),
}
"""The places of other versions, by what these are."""


def list_places() -> list[Place]:
    """Return all places in which a version may be."""
    places = [*RENOVATE_READS.values(), *NOT_TO_UPDATE.values()]
    for manager in CONFIG["customManagers"]:
        [text] = manager["matchStrings"]
        # In Renovate, slashes surround a regular expression, and named groups have no P.
        files = "|".join(pattern.strip("/") for pattern in manager["managerFilePatterns"])
        places.append(Place(files, text.replace("(?<", "(?P<")))
    return places


def find_unknown_versions(path: str, text: str) -> set[str]:
    """Return the versions in a file that are in none of the places."""
    for place in list_places():
        if re.search(place.files, path):
            text = re.sub(place.text, "", text, flags=re.MULTILINE)
    if path.endswith(".py"):
        return set(VERSION_IN_PYTHON.findall(text))
    return set(VERSION.findall(COMMENT.sub("", text)))


def test_every_version_is_in_a_place_that_renovate_reads_or_is_not_to_be_updated(
    tmp_path: Path,
) -> None:
    copy_checkout(tmp_path)  # without the files that git ignores
    unknown_versions: dict[str, set[str]] = {}
    for file in tmp_path.rglob("*"):
        path = str(file.relative_to(tmp_path))
        is_relevant = path not in OTHER_FILES and file.suffix not in OTHER_SUFFIXES
        if is_relevant and file.is_file() and not file.is_symlink():
            versions = find_unknown_versions(path, file.read_text())
            if versions:
                unknown_versions[path] = versions
    assert unknown_versions == {}


@pytest.mark.parametrize(
    ("path", "text", "version"),
    [
        ("Dockerfile", "ARG UV_IMAGE=ghcr.io/astral-sh/uv:0.13.8\n", "0.13.8"),
        ("Makefile", "CHECKOV_VERSION := 3.3.30\n", "3.3.30"),
        (".github/workflows/ci.yml", "      - run: go run example.com/tool@v1.2.3\n", "v1.2.3"),
        ("deploy/base/k8s.yaml", "    args: [--image, postgres:18-alpine]\n", "18-alpine"),
        ("tests/container/conftest.py", 'IMAGE = "postgres:18-alpine"\n', "18-alpine"),
    ],
)
def test_a_version_in_another_place_is_found(path: str, text: str, version: str) -> None:
    assert find_unknown_versions(path, text) == {version}


def test_renovate_reads_the_manifests_as_kubernetes() -> None:
    """Without a pattern, Renovate reads no manifest: any YAML file could be one."""
    [files] = CONFIG["kubernetes"]["managerFilePatterns"]
    assert files == f"/{RENOVATE_READS['kubernetes'].files}/"


def test_versions_have_the_same_minimum_age_in_renovate_and_in_uv() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert CONFIG["minimumReleaseAge"] == project["tool"]["uv"]["exclude-newer"] == "7 days"
