"""`make bench-telemetry`: what the extra `telemetry` costs a request, as Markdown tables.

It builds an image with the extra and one without. The containers run on one core; wrk, the
databases and the receiver of the spans run on the others.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from uuid import uuid4

from tools.checkout import copy_checkout
from tools.dev.servers import Postgres, ServerError, running_servers

from .containers import SERVICE, Container, Image, run_containers
from .docker_cli import docker, exit_on_interrupt, remove_containers, remove_images
from .items import insert_items  # example
from .measurement import Case, Comparison, measure_in_rounds
from .page import require_sections, write_sections
from .report import case_table
from .service import check_machine

SECTIONS = ["traces"]
SECTIONS += ["traces items"]  # example
EXTRA = "telemetry"
WITHOUT = "without the extra"
OFF = "with the extra, traces off"
SAMPLED = "traces on, 10 % sampled"
ALL = "traces on, all sampled"
SAMPLER = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}


class Receiver(BaseHTTPRequestHandler):
    """Accepts spans, and does nothing with them."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read the spans and respond with 200."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    """Print the tables. If the variable WRITE is 1, write them into the page too.

    Exits with a message and a code other than 0 if that is impossible.
    """
    check_machine()
    must_write = os.environ.get("WRITE") == "1"
    if must_write:
        require_sections(SECTIONS)
    exit_on_interrupt()
    measured_core, *other_cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, other_cores)  # the clients and the databases inherit it
    label = f"bench-{uuid4().hex[:12]}"
    try:
        with TemporaryDirectory(prefix="bench-") as folder:
            sections = _measure(Path(folder), label, measured_core)
    except ServerError as error:
        sys.exit(f"bench: {error}")
    finally:
        remove_containers(label)
        remove_images(label)
    print("\n\n".join(sections.values()))
    if must_write:
        write_sections(sections)


def _measure(folder: Path, label: str, core: int) -> dict[str, str]:
    """Return the text of each section of the page."""
    _print_progress("building two images")
    checkout = folder / "checkout"
    checkout.mkdir()
    copy_checkout(checkout)
    without_extra = _build(checkout, "", label, core)
    with_extra = _build(checkout, EXTRA, label, core)
    postgres = Postgres(folder / "postgresql")
    with running_servers(postgres), _running_receiver() as endpoint:
        without_extra.run("fastapi-k8s", "migrate", DATABASE_URL=postgres.url)
        environment = {"DATABASE_URL": postgres.url, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        containers = {
            WITHOUT: without_extra.container(*SERVICE, DATABASE_URL=postgres.url),
            OFF: with_extra.container(*SERVICE, DATABASE_URL=postgres.url),
            SAMPLED: with_extra.container(*SERVICE, **environment, **SAMPLER),
            ALL: with_extra.container(*SERVICE, **environment),
        }
        cases = {"traces": _cases("`GET /version`", "/version", containers)}
        # example
        item = f"/items/{insert_items(postgres.url, 1)[0]}"
        cases["traces items"] = _cases("`GET /items/{id}`, cache off", item, containers)
        # end example
        with run_containers(*containers.values()):
            _print_progress("CPU time per request, about four minutes")
            samples = measure_in_rounds([case for section in cases.values() for case in section])
        return {name: case_table(section, samples) for name, section in cases.items()}


def _build(checkout: Path, extras: str, label: str, core: int) -> Image:
    tag = f"{label}:{extras or 'no-extras'}"
    docker("build", f"--tag={tag}", f"--build-arg=EXTRAS={extras}", str(checkout))
    return Image(tag, label, core)


def _cases(request: str, path: str, containers: dict[str, Container]) -> list[Case]:
    """A case for each variant, compared with the one before it that has fewer spans."""
    comparisons = {
        WITHOUT: None,
        OFF: Comparison(f"{request}, {WITHOUT}", target=0.99),
        SAMPLED: Comparison(f"{request}, {OFF}"),
        ALL: Comparison(f"{request}, {OFF}"),
    }
    return [
        Case(f"{request}, {variant}", container, path, comparisons[variant])
        for variant, container in containers.items()
    ]


@contextmanager
def _running_receiver() -> Iterator[str]:
    """The URL of a receiver of spans, until the end of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _print_progress(step: str) -> None:
    print(f"bench: {step}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
