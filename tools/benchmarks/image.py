"""`make bench-image`: size, build time and start time of the image, as a Markdown table."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic
from typing import NamedTuple
from uuid import uuid4

import fastapi_k8s as package
from tools.checkout import copy_checkout

from .docker_cli import (
    HARDENED,
    compressed_mb,
    docker,
    exit_on_interrupt,
    remove_containers,
    remove_images,
    wait_for_health,
)

REPOSITORY = f"{package.NAME}-bench-{uuid4().hex[:12]}"
"""Name of the images, and label of the containers."""

CLEAN_BUILDS = 2
REBUILDS = 3
STARTS = 5
MAX_COMPRESSED_MB = 40
MAX_COMPRESSED_WITH_EXTRAS_MB = 48
MAX_REBUILD_RATIO = 0.25

# The value is never used, since GET /health does not connect to the database.
DATABASE_URL = "postgresql://app:unused@127.0.0.1/app"


class Build(NamedTuple):
    """The duration of a build, and whether the step with the dependencies came from the cache."""

    seconds: float
    dependencies_cached: bool


def main() -> None:
    """Print the table. Exits with a message and a code other than 0 if that is impossible."""
    exit_on_interrupt()
    with TemporaryDirectory(prefix="bench-") as folder:
        try:
            rows = list(_measure(Path(folder)))
        finally:
            remove_containers(REPOSITORY)
            remove_images(REPOSITORY)
    print("| What | Measured | Target | Met |")
    print("|---|---|---|---|")
    print("\n".join(rows))


def _measure(context: Path) -> Iterator[str]:
    print("bench: building and starting, some minutes", file=sys.stderr, flush=True)
    copy_checkout(context)
    _build("production", context, "--no-cache")  # fills uv's cache, and is not counted
    yield from _size_rows(context)
    yield from _build_rows(context)
    seconds = median(_start_seconds() for _ in range(STARTS))
    yield _row(f"Start of the container to the first 200, s, median of {STARTS}", seconds)


def _size_rows(context: Path) -> Iterator[str]:
    # An image of its own, because `docker save` may not find what a build has pulled.
    _build("base", context, "--target=base")
    _build("dockerfile.dev", context, f"--file={context}/Dockerfile.dev")
    _build("development", context, "--target=development")
    _build("extras", context, f"--build-arg=EXTRAS={' '.join(_read_extras(context))}")
    image = compressed_mb(f"{REPOSITORY}:production")
    base = compressed_mb(f"{REPOSITORY}:base")
    yield _row("Compressed, MB", image, MAX_COMPRESSED_MB)
    with_extras = compressed_mb(f"{REPOSITORY}:extras")
    yield _row("With all extras, compressed, MB", with_extras, MAX_COMPRESSED_WITH_EXTRAS_MB)
    yield _row("The base image alone, compressed, MB", base)
    yield _row("Compressed, as a share of the base image", image / base)
    for tag in ("production", "extras", "dockerfile.dev", "development"):
        yield _row(f"On disk, MB: {tag}", _disk_mb(tag))


def _read_extras(context: Path) -> list[str]:
    """Return the names of the optional dependencies of the project in `context`."""
    project = tomllib.loads((context / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"])


def _build_rows(context: Path) -> Iterator[str]:
    clean_builds = [
        _build(f"clean-{number}", context, "--no-cache") for number in range(CLEAN_BUILDS)
    ]
    rebuilds = [_rebuild_after_edit(number, context) for number in range(REBUILDS)]
    clean_seconds = median(build.seconds for build in clean_builds)
    rebuild_seconds = median(build.seconds for build in rebuilds)
    always_cached = "yes" if all(build.dependencies_cached for build in rebuilds) else "no"
    yield _row(f"Clean build, packages in uv's cache, s, median of {CLEAN_BUILDS}", clean_seconds)
    yield _row(f"Rebuild after an edit of one line, s, median of {REBUILDS}", rebuild_seconds)
    ratio = rebuild_seconds / clean_seconds
    yield _row("Rebuild, as a share of the clean build", ratio, MAX_REBUILD_RATIO)
    yield f"| The rebuild reuses the dependency step | {always_cached} | yes | {always_cached} |"


def _rebuild_after_edit(number: int, context: Path) -> Build:
    """Build with one new line in the source, which no earlier build has seen."""
    with (context / "src" / package.__name__ / "health.py").open("a") as source:
        source.write(f"# {REPOSITORY} {number}\n")
    return _build(f"rebuild-{number}", context)


def _build(tag: str, context: Path, *flags: str) -> Build:
    """Build `context`. `tag` has to be new: an image that loses its tag would not be removed."""
    start_time = monotonic()
    output = docker("build", "--progress=plain", f"--tag={REPOSITORY}:{tag}", *flags, str(context))
    seconds = monotonic() - start_time
    cached_step = r"(?ms)^(#\d+) \[dependencies [^\n]*uv sync.*^\1 CACHED$"
    return Build(seconds, dependencies_cached=bool(re.search(cached_step, output.stderr)))


def _disk_mb(tag: str) -> float:
    output = docker("image", "inspect", "--format={{.Size}}", f"{REPOSITORY}:{tag}")
    return int(output.stdout) / 1e6


def _start_seconds() -> float:
    """Seconds from `docker start` to the first response with status 200."""
    options = (
        f"--label={REPOSITORY}",
        "--publish=127.0.0.1::8000",
        f"--env=DATABASE_URL={DATABASE_URL}",
        *HARDENED,
    )
    container = docker("create", *options, f"{REPOSITORY}:production").stdout.strip()
    start_time = monotonic()
    docker("start", container)
    address = docker("port", container, "8000").stdout.strip()
    wait_for_health(f"http://{address}", container)
    seconds = monotonic() - start_time
    docker("rm", "--force", container)
    return seconds


def _row(description: str, value: float, target: float | None = None) -> str:
    if target is None:
        return f"| {description} | {value:.2f} | | |"
    met_text = "yes" if value <= target else "no"
    return f"| {description} | {value:.2f} | ≤ {target:g} | {met_text} |"


if __name__ == "__main__":
    main()
