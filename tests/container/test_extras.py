"""The image with all optional dependencies of pyproject.toml."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from python_on_whales import DockerClient

from tests.container.conftest import RunApplication, application_environment
from tests.docker_session import LABELS
from tools.checkout import copy_checkout, get_docker_environment, run_command
from tools.dev.servers import wait_until

FIND_DISTRIBUTIONS = """
from importlib.metadata import distributions
print(*[distribution.name for distribution in distributions()])
"""
VERIFY_TOKENS = """
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

private_keys = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
for algorithm, key in private_keys.items():
    token = jwt.encode({"sub": algorithm}, key, algorithm)
    print(jwt.decode(token, key.public_key(), [algorithm])["sub"])
"""
ISSUER = {"JWT_ISSUER": "https://issuer.invalid", "JWT_AUDIENCE": "api"}

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


@pytest.mark.parametrize(
    ("variables", "extra"),
    [({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector"}, "telemetry"), (ISSUER, "auth")],
)
def test_an_image_without_an_extra_does_not_start_with_the_variables_that_need_it(
    image: str, variables: dict[str, str], extra: str
) -> None:
    environment = application_environment() | variables
    command = ["docker", "run", "--rm"]
    command += [f"--label={name}={value}" for name, value in LABELS.items()]
    command += [f"--env={name}={value}" for name, value in environment.items()]
    result = subprocess.run([*command, image], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert f"make docker-build EXTRAS={extra}" in result.stderr.splitlines()[-1]


def test_an_image_with_the_extra_for_authentication_can_verify_tokens(
    run_application: RunApplication, image_with_extras: str
) -> None:
    """It serves without an issuer. Requests with tokens would be 503 until it finds one."""
    with run_application(ISSUER, tag=image_with_extras) as application:
        assert application.run_python(VERIFY_TOKENS).split() == ["RS256", "ES256", "EdDSA"]
        wait_until(
            lambda: "signing keys cannot be fetched" in str(application.container.logs()),
            60,
            "the warning that there is no issuer",
        )


@pytest.mark.parametrize(("extras", "exported"), [("", "unset"), ("auth", "auth")])
def test_extras_in_the_makefile_reach_compose(tmp_path: Path, extras: str, exported: str) -> None:
    """An empty variable would take precedence over EXTRAS in .env."""
    copy_checkout(tmp_path)
    makefile = (tmp_path / "Makefile").read_text()
    makefile = makefile.replace("\nEXTRAS ?=\n", f"\nEXTRAS ?= {extras}\n")
    (tmp_path / "Makefile").write_text(f'{makefile}\nprint:\n\t@echo "$${{EXTRAS-unset}}"\n')
    environment = get_docker_environment()
    output = run_command(["make", "print"], cwd=tmp_path, env=environment)
    assert output.splitlines()[-1] == exported
