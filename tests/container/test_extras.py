"""The image with all optional dependencies of pyproject.toml."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from python_on_whales import DockerClient

from tests.container.conftest import RunApplication, application_environment
from tests.docker_session import LABELS

FIND_DISTRIBUTIONS = """
from importlib.metadata import distributions
print(*[distribution.name for distribution in distributions()])
"""

RECEIVE_SPANS = """
from http.server import BaseHTTPRequestHandler, HTTPServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope_spans in resource_spans.scope_spans:
                print(*[span.name for span in scope_spans.spans], sep="\\n")
        self.send_response(200)
        self.end_headers()

HTTPServer(("127.0.0.1", 4318), Handler).handle_request()
"""


def find_distributions(docker: DockerClient, tag: str) -> set[str]:
    """Return the names of the Python packages in an image."""
    return set(str(docker.run(tag, ["python", "-c", FIND_DISTRIBUTIONS], remove=True)).split())


def test_an_image_contains_the_extras_that_the_build_argument_names(
    docker: DockerClient, image: str, image_with_extras: str
) -> None:
    extra_distributions = find_distributions(docker, image_with_extras) - find_distributions(
        docker, image
    )
    assert {"PyJWT", "cryptography", "opentelemetry-sdk"} <= extra_distributions


@pytest.mark.usefixtures("postgres", "redis")
def test_an_image_with_all_extras_serves(
    run_application: RunApplication, image_with_extras: str
) -> None:
    with run_application(application_environment(), tag=image_with_extras) as application:
        assert application.client.get("/ready").json()["status"] == "ready"


@pytest.mark.usefixtures("postgres", "redis")
def test_an_image_with_the_extra_telemetry_sends_traces(
    run_application: RunApplication, image_with_extras: str
) -> None:
    environment = application_environment() | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with (
        run_application(environment, tag=image_with_extras) as application,
        ThreadPoolExecutor() as executor,
    ):
        spans = executor.submit(application.run_python, RECEIVE_SPANS)
        # The exporter tries again until the receiver listens.
        assert application.client.get("/version").status_code == 200
        assert spans.result(timeout=60) == "GET /version"


def test_an_image_without_the_extra_telemetry_does_not_start_with_an_endpoint(image: str) -> None:
    environment = application_environment() | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector"}
    command = ["docker", "run", "--rm"]
    command += [f"--label={name}={value}" for name, value in LABELS.items()]
    command += [f"--env={name}={value}" for name, value in environment.items()]
    result = subprocess.run([*command, image], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert "make docker-build EXTRAS=telemetry" in line
