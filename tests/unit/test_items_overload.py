"""The load curves of `make bench`."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from xml.etree import ElementTree as ET

import pytest

from tools.benchmarks.overload.clients import Response, run_clients
from tools.benchmarks.overload.measurement import (
    CONNECTIONS,
    SECONDS,
    WARM_UP_SECONDS,
    LoadPoint,
    load_point,
)
from tools.benchmarks.overload.picture import load_curves_svg
from tools.benchmarks.overload.report import target_table

END = WARM_UP_SECONDS + SECONDS


def make_point(connections: int, throughput: float = 1000, **changes: float) -> LoadPoint:
    times = {"p50": 0.1, "p99": 0.2, "refusal_p99": 0.05, "health_p99": 0.1}
    return LoadPoint(connections, throughput, refused_share=0.01, **(times | changes))


class Handler(BaseHTTPRequestHandler):
    """Responds to each second request with 503, and closes the connection for /close."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]

    def do_GET(self) -> None:
        self.respond(b"")

    def do_POST(self) -> None:
        self.respond(self.rfile.read(int(self.headers["Content-Length"])))

    def respond(self, body: bytes) -> None:
        self.bodies.append(body)
        self.send_response(503 if len(self.bodies) % 2 == 0 else 200)
        self.send_header("Content-Length", "2")
        if self.path == "/close":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Do not write to stderr."""


@contextmanager
def running_server() -> Iterator[tuple[str, list[bytes]]]:
    """The URL of a server, and the bodies that it has received."""
    bodies: list[bytes] = []
    handler = type("HandlerOfThisServer", (Handler,), {"bodies": bodies})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()


def test_clients_record_every_response_with_its_status() -> None:
    with running_server() as (url, bodies):
        responses = run_clients(f"{url}/path", connections=1, seconds=0.2, body=b"content")
    assert bodies == [b"content"] * len(responses)
    statuses = [response.status for response in responses]
    assert statuses[:4] == [200, 503, 200, 503]
    assert all(response.sent_at <= response.received_at for response in responses)


def test_each_client_pauses_after_a_response() -> None:
    with running_server() as (url, bodies):
        responses = run_clients(f"{url}/path", connections=3, seconds=0.1, pause_seconds=10)
    assert len(responses) == len(bodies) == 3


def test_a_closed_connection_is_an_error() -> None:
    with running_server() as (url, _), pytest.raises(ConnectionError, match="closed a connection"):
        run_clients(f"{url}/close", connections=1, seconds=5)


def test_a_point_counts_what_is_received_after_the_warm_up_by_status() -> None:
    responses = [
        Response(sent_at=0, seconds=0.5, status=200),  # during the warm-up
        Response(sent_at=0.5, seconds=1, status=201),
        Response(sent_at=2, seconds=1, status=200),
        Response(sent_at=2, seconds=0.001, status=503),
        Response(sent_at=END - 1, seconds=9, status=200),  # starved
    ]
    health = [Response(sent_at=2, seconds=0.003, status=200)]
    point = load_point(3, responses, health)
    assert point.throughput == 2 / SECONDS
    assert point.refused_share == 1 / 4
    assert point.p50 == 1
    assert point.p99 == pytest.approx(9, rel=0.03)
    assert point.refusal_p99 == 0.001
    assert point.health_p99 == 0.003
    assert point.queue_seconds == 3 / point.throughput


def test_another_status_is_an_error() -> None:
    response = Response(sent_at=2, seconds=0.1, status=500)
    with pytest.raises(RuntimeError, match="has the status 500"):
        load_point(1, [response], [response])


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({}, "yes"),
        ({"throughput": 899}, "no"),
        ({"p99": 0.39}, "no"),
        ({"refusal_p99": 0.051}, "no"),
        ({"health_p99": 0.101}, "no"),
    ],
)
def test_the_targets_under_overload(changes: dict[str, float], met: str) -> None:
    curve = [make_point(32), make_point(256, **changes)]
    [row] = target_table({"a read": curve}).splitlines()[2:]
    assert row.startswith("| a read | 256 |")
    assert row.endswith(f"| {met} |")


def test_the_picture_has_a_marker_for_each_point_of_each_curve() -> None:
    curve = [make_point(connections) for connections in CONNECTIONS]
    picture = ET.fromstring(load_curves_svg({"`a`": curve, "b": curve, "c": curve}))
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a", "b", "c"} <= set(texts)
    for series in range(3):
        markers = picture.findall(f".//*[@class='marker series-{series}']")
        assert len(markers) == 2 * len(CONNECTIONS) + 1
