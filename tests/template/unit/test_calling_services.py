"""The code of docs/calling-services.md, in a copy of the service, against a real HTTP server."""

import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, TypeAlias

import httpx
import pytest
import yaml
from kubernetes_validate.utils import latest_version, validate

from fastapi_k8s import NAME
from tests.template.pages import insert_lines, read_blocks, read_python_files
from tools.checkout import PROJECT, copy_checkout
from tools.dev.servers import free_port, wait_until

PAGE = PROJECT / "docs" / "calling-services.md"
PACKAGE = NAME.replace("-", "_")
PATH_OR_DIFF = re.compile(
    r"`(src/\S+|pyproject\.toml)`|^```diff\n(.*?)^```", re.DOTALL | re.MULTILINE
)
"""The path of a file, or a diff. A diff belongs to the file that was named last."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""A value of SO_LINGER with which close() sends RST instead of FIN."""

MAX_CONNECTIONS = 20
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
KEY = {"Idempotency-Key": "order-4711"}
RESERVATION = {"quantity": 2}


class InventoryHandler(BaseHTTPRequestHandler):
    """Reacts to a request as the test has chosen."""

    protocol_version = "HTTP/1.1"
    server: "InventoryServer"

    def do_GET(self) -> None:
        """Record the request, and react."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        self.server.connections.add(self.client_address[1])
        reactions = self.server.reactions
        reaction = reactions.pop(0) if reactions else respond()
        reaction(self)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Write no access log."""


Reaction: TypeAlias = Callable[[InventoryHandler], None]


class InventoryServer(ThreadingHTTPServer):
    """The inventory service. `reactions` are those to the next requests, in their order."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), InventoryHandler)
        self.reactions: list[Reaction] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.connections: set[int] = set()


def respond(status: int = 200, body: bytes = b'{"available": 7}', **headers: str) -> Reaction:
    """A reaction that sends a response."""

    def react(handler: InventoryHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return react


def close(handler: InventoryHandler) -> None:
    """Close the connection without a response, as a server does with one that was idle."""
    handler.close_connection = True


def reset(handler: InventoryHandler) -> None:
    """Reset the connection in the middle of the response."""
    respond(Content_Length="100")(handler)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    os.close(handler.connection.detach())
    handler.close_connection = True


def hang(handler: InventoryHandler) -> None:
    """Send nothing until the client closes the connection."""
    handler.connection.recv(1)
    handler.close_connection = True


def trickle(handler: InventoryHandler) -> None:
    """Send a byte from time to time, until the client closes the connection."""
    handler.close_connection = True
    with suppress(OSError):
        respond(Content_Length="1000")(handler)
        while True:
            time.sleep(0.2)
            handler.wfile.write(b" ")


def follow_page(project: Path) -> None:
    """Create the files and make the edits that the page describes."""
    for path, code in read_python_files(PAGE):
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text(code)
    path = ""
    for next_path, diff in PATH_OR_DIFF.findall(PAGE.read_text()):
        path = next_path or path
        if diff:
            insert_lines(project / path, diff)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout with the code of the page."""
    project = copy_checkout(tmp_path_factory.mktemp("project"))
    follow_page(project)
    return project


@pytest.fixture(scope="module")
def inventory() -> Iterator[InventoryServer]:
    """The inventory service."""
    with InventoryServer() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def running_service(project: Path, inventory_port: int) -> Iterator[str]:
    """Run the service with the code of the page, and yield its URL."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(project / "src"),
        "DATABASE_URL": f"postgresql://user:hidden@127.0.0.1:{free_port()}/name",
        "INVENTORY_URL": f"http://127.0.0.1:{inventory_port}",
    }
    application = f"{PACKAGE}.main:create_app_from_environment"
    command = [sys.executable, "-m", "uvicorn", "--factory", application, f"--port={port}"]
    with subprocess.Popen(command, cwd=project, env=environment) as process:
        url = f"http://127.0.0.1:{port}"

        def is_alive() -> bool:
            assert process.poll() is None, "the service has ended"
            with suppress(httpx.TransportError):
                return httpx.get(f"{url}/health").is_success
            return False

        try:
            wait_until(is_alive, 30, "the service")
            yield url
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def service(project: Path, inventory: InventoryServer) -> Iterator[str]:
    """The URL of a service that calls the inventory service."""
    with running_service(project, inventory.server_port) as url:
        yield url


@pytest.fixture
def client(service: str, inventory: InventoryServer) -> Iterator[httpx.Client]:
    """A client of the service. The inventory service has received no request yet."""
    inventory.reactions.clear()
    inventory.requests.clear()
    inventory.connections.clear()
    with httpx.Client(base_url=service, timeout=20) as client:
        yield client


def read_detail(response: httpx.Response, status: int) -> str:
    """The detail of problem details with this status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["detail"])


def test_the_code_passes_the_linters(project: Path) -> None:
    for command in (["format", "--check"], ["check"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet", "src"], cwd=project, check=True
        )


def test_the_rule_belongs_to_the_network_policy(project: Path) -> None:
    [rules] = [yaml.safe_load(block) for info, block in read_blocks(PAGE) if info == "yaml"]
    objects = yaml.safe_load_all((project / "k8s.yaml").read_text())
    [policy] = [
        each
        for each in objects
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "api"
    ]
    policy["spec"]["egress"] += rules
    validate(policy, latest_version(), strict=True)


def test_calls_share_a_connection_and_pass_the_request_id_and_the_trace_on(
    client: httpx.Client, inventory: InventoryServer
) -> None:
    for _ in range(3):
        headers = {"X-Request-ID": "abc-123", "traceparent": TRACEPARENT}
        response = client.get("/stock/lamp%3Fred", headers=headers)
        assert (response.status_code, response.json()) == (200, {"available": 7})
    assert len(inventory.connections) == 1
    for method, path, received_headers in inventory.requests:
        assert (method, path) == ("GET", "/stock/lamp%3Fred")
        assert received_headers["X-Request-ID"] == "abc-123"
        assert received_headers["traceparent"] == TRACEPARENT


def test_a_generated_request_id_is_passed_on_too(
    client: httpx.Client, inventory: InventoryServer
) -> None:
    request_id = client.get("/stock/lamp").headers["x-request-id"]
    [(_, _, headers)] = inventory.requests
    assert headers["X-Request-ID"] == request_id
    assert "traceparent" not in headers


def test_an_unknown_product_is_404(client: httpx.Client, inventory: InventoryServer) -> None:
    inventory.reactions = [respond(404)]
    assert read_detail(client.get("/stock/none"), 404) == "Product not found."


@pytest.mark.parametrize(
    "reaction",
    [close, reset, respond(503, Retry_After="0"), respond(429, Retry_After="1")],
    ids=["close", "reset", "503", "429"],
)
def test_a_read_is_repeated_once(
    client: httpx.Client, inventory: InventoryServer, reaction: Reaction
) -> None:
    client.get("/stock/lamp")  # opens the connection that is closed at the second request
    inventory.reactions = [reaction]
    assert client.get("/stock/lamp").json() == {"available": 7}
    assert len(inventory.requests) == 3


@pytest.mark.parametrize(
    ("reaction", "status", "headers"),
    [
        (close, 502, {}),
        (reset, 502, {}),
        (respond(503, Retry_After="0"), 503, {"retry-after": "0"}),
    ],
    ids=["close", "reset", "503"],
)
def test_a_read_is_not_repeated_twice(
    client: httpx.Client,
    inventory: InventoryServer,
    reaction: Reaction,
    status: int,
    headers: dict[str, str],
) -> None:
    inventory.reactions = [reaction, reaction]
    response = client.get("/stock/lamp")
    read_detail(response, status)
    assert headers.items() <= dict(response.headers).items()
    assert len(inventory.requests) == 2


@pytest.mark.parametrize(
    ("reaction", "status", "headers"),
    [
        (respond(503, Retry_After="30"), 503, {"retry-after": "30"}),
        (respond(503), 503, {"retry-after": "1"}),
        (respond(500), 502, {}),
        (respond(400), 502, {}),
        (respond(301), 502, {}),
        (respond(body=b"{}"), 502, {}),
        (respond(body=b"<html>"), 502, {}),
    ],
    ids=["503 for long", "503", "500", "400", "301", "other JSON", "not JSON"],
)
def test_a_read_is_not_repeated_if_that_would_not_help(
    client: httpx.Client,
    inventory: InventoryServer,
    reaction: Reaction,
    status: int,
    headers: dict[str, str],
) -> None:
    inventory.reactions = [reaction]
    response = client.get("/stock/lamp")
    read_detail(response, status)
    assert headers.items() <= dict(response.headers).items()
    assert len(inventory.requests) == 1


@pytest.mark.parametrize(
    ("reaction", "status"), [(close, 502), (reset, 502), (respond(503, Retry_After="0"), 503)]
)
def test_a_write_without_a_key_is_not_repeated(
    client: httpx.Client, inventory: InventoryServer, reaction: Reaction, status: int
) -> None:
    inventory.reactions = [reaction]
    response = client.post("/stock/lamp/reservations", json=RESERVATION)
    read_detail(response, status)
    assert len(inventory.requests) == 1


@pytest.mark.parametrize("reaction", [close, reset, respond(503, Retry_After="0")])
def test_a_write_with_a_key_is_repeated_with_the_key(
    client: httpx.Client, inventory: InventoryServer, reaction: Reaction
) -> None:
    inventory.reactions = [reaction]
    response = client.post("/stock/lamp/reservations", json=RESERVATION, headers=KEY)
    assert (response.status_code, response.json()) == (201, {"available": 7})
    assert [headers["Idempotency-Key"] for _, _, headers in inventory.requests] == [
        "order-4711"
    ] * 2


def test_a_response_that_takes_too_long_is_504(
    client: httpx.Client, inventory: InventoryServer
) -> None:
    inventory.reactions = [trickle]
    detail = read_detail(client.get("/stock/lamp"), 504)
    assert detail == "The inventory service did not respond in time."
    assert len(inventory.requests) == 1


def test_only_some_requests_wait_for_a_slow_service(
    client: httpx.Client, inventory: InventoryServer
) -> None:
    inventory.reactions = [hang] * MAX_CONNECTIONS
    with ThreadPoolExecutor(MAX_CONNECTIONS + 5) as threads:
        responses = list(threads.map(client.get, ["/stock/lamp"] * (MAX_CONNECTIONS + 5)))
    statuses = sorted(response.status_code for response in responses)
    assert statuses == [503] * 5 + [504] * MAX_CONNECTIONS
    assert len(inventory.requests) == MAX_CONNECTIONS
    assert client.get("/health").status_code == 200


def test_a_service_that_refuses_connections_is_503(project: Path) -> None:
    with running_service(project, inventory_port=free_port()) as url:
        response = httpx.get(f"{url}/stock/lamp")
    assert read_detail(response, 503) == "The inventory service cannot be reached."
    assert response.headers["retry-after"] == "1"
