"""`make bench`: compare the service with bare FastAPI in the same image, as Markdown tables.

The containers run on one core, wrk and the databases on the others. Shares belong to one run, and
carry over to other machines; absolute figures do not.
"""

import os
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from tools.dev.servers import Postgres, ServerError, Valkey, running_servers

from .containers import SERVICE, Image, run_containers
from .docker_cli import exit_on_interrupt, remove_containers
from .endpoints import endpoint_cases
from .footprint import measure_footprint
from .items import item_cases  # example
from .measurement import measure_in_rounds
from .overload.measurement import measure_load_curves  # example
from .overload.picture import PICTURE, load_curves_svg  # example
from .overload.report import load_table, target_table  # example
from .page import require_sections, write_sections
from .report import case_table, footprint_table

SECTIONS = ["versions", "endpoints", "footprint"]
SECTIONS += ["items", "load", "load targets"]  # example

PRINT_VERSIONS = """
import platform
from importlib.metadata import version
packages = ("fastapi", "pydantic", "uvicorn", "gunicorn", "asyncpg", "redis")
versions = [f"{name} {version(name)}" for name in packages]
print(f"Python {platform.python_version()}", *versions, sep=", ")
"""


@dataclass
class Results:
    """What was measured: the text of each section of the page, and the picture."""

    sections: dict[str, str] = field(default_factory=dict)
    picture: str = ""  # example


def main() -> None:
    """Measure the image that the variable IMAGE names, and print the tables.

    If the variable WRITE is 1, write them into the page too. Exits with a message and a
    code other than 0 if that is impossible.
    """
    check_machine()
    must_write = os.environ.get("WRITE") == "1"
    if must_write:
        require_sections(SECTIONS)
    exit_on_interrupt()
    measured_core, *other_cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, other_cores)  # the clients and the databases inherit it
    image = Image(os.environ["IMAGE"], f"bench-{uuid4().hex[:12]}", measured_core)
    results = Results()
    try:
        with TemporaryDirectory(prefix="bench-") as folder:
            _measure(image, Path(folder), results)
    except ServerError as error:
        sys.exit(f"bench: {error}")
    finally:
        remove_containers(image.label)
    print(*results.sections.values(), sep="\n\n")
    if must_write:
        write_sections(results.sections)
        PICTURE.write_text(results.picture)  # example


def check_machine() -> None:
    """Exit with a message if something is missing. The Makefile checks for Docker and the image."""
    if sys.platform != "linux":
        sys.exit("bench: it reads what processes use from /proc, so it needs Linux")
    if not shutil.which("wrk"):
        sys.exit("bench: wrk is missing; on Debian: apt install wrk")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("bench: it needs two cores, one of them for what is measured")


def _measure(image: Image, folder: Path, results: Results) -> None:
    postgres = Postgres(folder / "postgresql")
    valkey = Valkey(folder / "valkey")
    results.sections["versions"] = f"Measured with {_versions(image)}."
    with running_servers(postgres, valkey):
        _print_progress("preparing")
        image.run("fastapi-k8s", "migrate", DATABASE_URL=postgres.url)
        _measure_requests(image, postgres, valkey, folder, results)
        _print_progress("start, memory and size, about two minutes")
        footprint = measure_footprint(image, postgres.url)
    results.sections["footprint"] = footprint_table(footprint)


def _measure_requests(
    image: Image, postgres: Postgres, valkey: Valkey, folder: Path, results: Results
) -> None:
    service = image.container(*SERVICE, DATABASE_URL=postgres.url, REDIS_URL=valkey.url)
    with ExitStack() as stack:
        stack.enter_context(run_containers(service))
        endpoints = stack.enter_context(endpoint_cases(image, postgres.url, service))
        cases = [*endpoints]
        # example
        items = stack.enter_context(item_cases(image, postgres.url, valkey.url, service, folder))
        cases += items.cases
        # end example
        _print_progress("CPU time per request, about five minutes")
        samples = measure_in_rounds(cases)
        results.sections["endpoints"] = case_table(endpoints, samples)
        # example
        results.sections["items"] = case_table(items.cases, samples)
        _print_progress("overload, about two minutes")
        curves = measure_load_curves(items.load_cases)
        results.sections["load"] = load_table(curves)
        results.sections["load targets"] = target_table(curves)
        results.picture = load_curves_svg(curves)
        # end example


def _versions(image: Image) -> str:
    return image.run("python", "-c", PRINT_VERSIONS).strip()


def _print_progress(step: str) -> None:
    print(f"bench: {step}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
