"""`make bench`: compare the service with bare FastAPI in the same image, as Markdown tables.

The containers run on one core, wrk and the databases on the others. Shares belong to one run, and
carry over to other machines; absolute figures do not.
"""

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from tools.dev.servers import Postgres, ServerError, Valkey, running_servers

from .containers import SERVICE, Image, run_containers
from .docker_cli import exit_on_interrupt, remove_containers
from .endpoints import ENDPOINT_COMPARISONS, endpoint_cases
from .footprint import measure_footprint
from .items import ITEM_COMPARISONS, item_cases  # example
from .measurement import Samples, measure_in_rounds
from .report import markdown

PRINT_VERSIONS = """
import platform
from importlib.metadata import version
packages = ("fastapi", "pydantic", "uvicorn", "gunicorn", "asyncpg", "redis")
versions = [f"{name} {version(name)}" for name in packages]
print(f"Python {platform.python_version()}", *versions, sep=", ")
"""


def main() -> None:
    """Print the tables for the image that the variable IMAGE names.

    Exits with a message and a code other than 0 if that is impossible.
    """
    _check_machine()
    exit_on_interrupt()
    measured_core, *other_cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, other_cores)  # wrk and the databases inherit it
    label = f"bench-{uuid4().hex[:12]}"
    image = Image(os.environ["IMAGE"], label, measured_core)
    try:
        with TemporaryDirectory(prefix="bench-") as folder:
            _measure(image, Path(folder))
    except ServerError as error:
        sys.exit(f"bench: {error}")
    finally:
        remove_containers(image.label)


def _check_machine() -> None:
    """Exit with a message if something is missing. The Makefile checks for Docker and the image."""
    if sys.platform != "linux":
        sys.exit("bench: it reads what processes use from /proc, so it needs Linux")
    if not shutil.which("wrk"):
        sys.exit("bench: wrk is missing; on Debian: apt install wrk")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("bench: it needs two cores, one of them for what is measured")


def _measure(image: Image, folder: Path) -> None:
    postgres = Postgres(folder / "postgresql")
    valkey = Valkey(folder / "valkey")
    with running_servers(postgres, valkey):
        _print_progress("preparing")
        image.run("fastapi-k8s", "migrate", DATABASE_URL=postgres.url)
        _print_progress("CPU time per request, about five minutes")
        samples = _measure_requests(image, postgres, valkey, folder)
        _print_progress("start and memory, about two minutes")
        footprint = measure_footprint(image, postgres.url)
    comparisons = [*ENDPOINT_COMPARISONS]
    comparisons += ITEM_COMPARISONS  # example
    print(markdown(samples, comparisons, footprint))
    print(f"\n`{image.name}`: {image.run('python', '-c', PRINT_VERSIONS).strip()}.")


def _measure_requests(image: Image, postgres: Postgres, valkey: Valkey, folder: Path) -> Samples:
    service = image.container(*SERVICE, DATABASE_URL=postgres.url, REDIS_URL=valkey.url)
    with ExitStack() as stack:
        stack.enter_context(run_containers(service))
        cases = stack.enter_context(endpoint_cases(image, postgres.url, service))
        items = item_cases(image, postgres.url, valkey.url, service, folder)  # example
        cases += stack.enter_context(items)  # example
        return measure_in_rounds(cases)


def _print_progress(step: str) -> None:
    print(f"bench: {step}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
