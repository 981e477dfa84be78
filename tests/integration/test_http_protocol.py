"""What the server does with the bytes that clients send, under Gunicorn as in production."""

import json
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from fastapi_k8s.server.connections import UNSENT_BYTES
from tests import raw_requests
from tests.raw_requests import (
    CHUNKED,
    GET,
    GET_LAST,
    HOST,
    INVALID_BODIES,
    INVALID_HEADS,
    LAST,
    POST,
    SMUGGLED,
    SMUGGLED_PATH,
    VALID_BODIES,
    VALID_HEADS,
    connect,
    content,
    read_all,
    statuses,
    with_length,
)
from tools.dev.servers import free_port, wait_until

from .apps import UPLOAD_SIZE
from .test_server import APP_WITH_TEST_ROUTES, Gunicorn, process_environment, running_gunicorn

HTTP_2_UPGRADE = b"Host: api\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
HTTP_2_HEAD_WITHOUT_BODY = GET + HTTP_2_UPGRADE + b"\r\n"
ONE_MB = bytes(1_000_000)
MEMORY_TOLERANCE_BYTES = 10_000_000
UNREAD_RESPONSE_SIZE = 10_000_000
"""More than the 4 MB that the kernel buffers for a connection."""


@pytest.fixture(scope="module")
def gunicorn() -> Iterator[Gunicorn]:
    """A server that the tests share. It needs no database."""
    with running_gunicorn(server_environment(), APP_WITH_TEST_ROUTES) as server:
        yield server


@pytest.fixture(scope="module")
def impatient_gunicorn() -> Iterator[Gunicorn]:
    """A server with short time limits and small size limits."""
    environment = server_environment(REQUEST_READ_TIMEOUT="1")
    limits = ["--limit-request-line=40", "--limit-request-fields=6"]
    limits += ["--limit-request-field_size=50", "--keep-alive=1"]
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES, *limits) as server:
        yield server


def server_environment(**variables: str) -> dict[str, str]:
    unreachable = f"postgresql://user:hidden@127.0.0.1:{free_port()}/name"
    return process_environment(DATABASE_URL=unreachable, **variables)


def exchange(server: Gunicorn, *segments: bytes, half_close: bool = False) -> bytes:
    """Send the segments, and return all that the server sends until it closes the connection."""
    return raw_requests.exchange(server.url, *segments, half_close=half_close)


def exchange_after_response(server: Gunicorn, request: bytes, rest: bytes) -> bytes:
    """Send `rest` when the response to `request` has begun. Return all that the server sends."""
    with connect(server.url) as connection:
        connection.sendall(request)
        received = connection.recv(65536)
        connection.sendall(rest)
        return received + read_all(connection)


def peak_memory(pid: int) -> int:
    """The largest resident set of a process so far, in bytes."""
    [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kilobytes) * 1024


INVALID_REQUESTS = INVALID_HEADS | INVALID_BODIES

ENDLESS_REQUESTS = {
    "URL": (414, b"GET /", b"x"),
    "header": (431, GET + HOST + b"X-Endless: ", b"x"),
    "headers": (431, GET + HOST, b"X-Many: x\r\n"),
    "trailer": (431, POST + HOST + CHUNKED + b"\r\n0\r\nX-Endless: ", b"x"),
    "trailers": (431, POST + HOST + CHUNKED + b"\r\n0\r\n", b"X-Many: x\r\n"),
    "extension of a chunk": (431, POST + HOST + CHUNKED + b"\r\n5;", b"x"),
    "empty lines": (431, b"", b"\r\n"),
}
"""The status, the start of the request, and what the client repeats after it."""

ENDLESS_BYTES = 60_000_000
"""Less than the 64 MiB that the server discards after its response."""


@pytest.mark.parametrize(("status", "segments"), VALID_HEADS.values(), ids=VALID_HEADS)
def test_a_valid_head_is_accepted(gunicorn: Gunicorn, status: int, segments: list[bytes]) -> None:
    """The request arrives in one segment, and in several."""
    assert statuses(exchange(gunicorn, b"".join(segments))) == [status]
    assert statuses(exchange(gunicorn, *segments)) == [status]


@pytest.mark.parametrize("segments", VALID_BODIES.values(), ids=VALID_BODIES)
def test_a_valid_body_is_read(gunicorn: Gunicorn, segments: list[bytes]) -> None:
    for received in (exchange(gunicorn, b"".join(segments)), exchange(gunicorn, *segments)):
        assert statuses(received) == [200]
        assert content(received)["body"] == "hello"


@pytest.mark.parametrize(("status", "segments"), INVALID_REQUESTS.values(), ids=INVALID_REQUESTS)
def test_an_invalid_request_is_refused_with_problem_details(
    gunicorn: Gunicorn, status: int, segments: list[bytes]
) -> None:
    """The server serves no further request of the connection."""
    received = exchange(gunicorn, b"".join([*segments, SMUGGLED]))
    assert statuses(received) == [status]
    assert content(received)["status"] == status
    assert b"content-type: application/problem+json\r\n" in received
    assert received.count(b"connection: close\r\n") == 1
    request_id = content(received)["request_id"]
    assert b"x-request-id: %s\r\n" % request_id.encode() in received


def test_no_request_behind_an_invalid_one_is_executed(gunicorn: Gunicorn) -> None:
    """Not even if the client would get no response to it."""
    for _, segments in INVALID_REQUESTS.values():
        exchange(gunicorn, b"".join([*segments, SMUGGLED]))
    gunicorn.client.get("/last")
    wait_until(lambda: "/last" in logged_paths(gunicorn), 20, "the last access log line")
    assert SMUGGLED_PATH not in logged_paths(gunicorn)


def logged_paths(server: Gunicorn) -> set[str]:
    return {line["path"] for line in log_lines(server) if "path" in line}


@pytest.mark.parametrize(
    ("status", "start", "repeated"), ENDLESS_REQUESTS.values(), ids=ENDLESS_REQUESTS
)
def test_an_endless_head_is_refused_and_costs_no_memory(
    gunicorn: Gunicorn, status: int, start: bytes, repeated: bytes
) -> None:
    peak = peak_memory(gunicorn.get_worker())
    rest = repeated * (ENDLESS_BYTES // len(repeated))
    assert statuses(exchange(gunicorn, start + rest)) == [status]
    assert peak_memory(gunicorn.get_worker()) - peak < MEMORY_TOLERANCE_BYTES


@pytest.mark.parametrize("is_split", [False, True], ids=["one segment", "two segments"])
@pytest.mark.parametrize(
    "body",
    [with_length(GET_LAST), CHUNKED + b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(GET_LAST), GET_LAST)],
    ids=["Content-Length", "chunks"],
)
def test_an_offer_of_http_2_is_declined_and_the_body_is_not_a_second_request(
    gunicorn: Gunicorn, body: bytes, is_split: bool
) -> None:
    head, end_of_head, rest = (POST + HTTP_2_UPGRADE + body).partition(b"\r\n\r\n")
    segments = [head + end_of_head, rest] if is_split else [head + end_of_head + rest]
    received = exchange(gunicorn, *segments, half_close=True)
    assert statuses(received) == [200]
    assert content(received)["body"].encode() == GET_LAST


def test_offers_of_http_2_are_declined_in_a_pipeline(gunicorn: Gunicorn) -> None:
    offer = POST + HTTP_2_UPGRADE + with_length(b"hello")
    received = exchange(gunicorn, offer * 3 + GET_LAST)
    assert statuses(received) == [200] * 4
    assert received.count(b'"body":"hello"') == 3
    without_host = (POST + HTTP_2_UPGRADE + with_length(b"")).replace(HOST, b"")
    head_of_64_kb = GET + HOST + b"X-Long: " + b"x" * 65536 + b"\r\n\r\n"
    assert statuses(exchange(gunicorn, offer + without_host)) == [200]
    assert statuses(exchange(gunicorn, without_host)) == [400]
    received = exchange_after_response(gunicorn, HTTP_2_HEAD_WITHOUT_BODY, head_of_64_kb)
    assert statuses(received) == [200, 431]


@pytest.mark.parametrize(
    ("target", "url"),
    [
        (b"HTTP://other:81/echo?a=b", "http://other:81/echo?a=b"),
        (b"http://other/echo", "http://other/echo"),
    ],
)
def test_the_host_of_an_absolute_form_replaces_the_header(
    gunicorn: Gunicorn, target: bytes, url: str
) -> None:
    received = exchange(gunicorn, b"POST %s HTTP/1.1\r\n" % target + LAST + b"\r\n")
    assert content(received)["url"] == url


@pytest.mark.parametrize("target", [b"http://api", b"http://api?a=b"])
def test_an_absolute_form_without_a_path_is_the_root(gunicorn: Gunicorn, target: bytes) -> None:
    received = exchange(gunicorn, b"GET %s HTTP/1.1\r\n" % target + LAST + b"\r\n")
    assert statuses(received) == [404]
    assert content(received)["instance"] == "/"


def test_the_address_of_an_ipv4_client_matches_the_trusted_proxies(gunicorn: Gunicorn) -> None:
    """Also on a socket for IPv6 and IPv4, which shows it as ::ffff:127.0.0.1."""
    forwarded = b"X-Forwarded-Proto: https\r\n"
    received = exchange(gunicorn, POST + LAST + forwarded + b"\r\n")
    assert content(received)["url"] == "https://api/echo"


def test_a_trailer_does_not_become_a_header(gunicorn: Gunicorn) -> None:
    chunks = b"\r\n5\r\nhello\r\n0\r\nAuthorization: forged\r\n"
    received = exchange(gunicorn, POST + LAST + CHUNKED + chunks, b"X-Other: forged\r\n\r\n")
    assert content(received)["body"] == "hello"
    assert b"forged" not in received


def test_a_pipeline_gets_its_responses_in_order(gunicorn: Gunicorn) -> None:
    slow = b"GET /slow/0.2 HTTP/1.1\r\n" + HOST + b"\r\n"
    received = exchange(gunicorn, slow + POST + HOST + with_length(b"hello") + GET_LAST)
    assert statuses(received) == [200, 200, 200]
    assert received.index(b'"done"') < received.index(b'"hello"') < received.index(b'"version"')


def test_an_invalid_request_does_not_lose_the_responses_before_it(gunicorn: Gunicorn) -> None:
    slow = b"GET /slow/0.2 HTTP/1.1\r\n" + HOST + b"\r\n"
    received = exchange(gunicorn, slow + b"GET / HTTP/1.1\r\n\r\n", b"ignored")
    assert statuses(received) == [200]
    assert b'"done"' in received


def test_a_client_that_expects_100_continue_gets_it(gunicorn: Gunicorn) -> None:
    head, _, body = with_length(b"hello").partition(b"\r\n\r\n")
    head = POST + LAST + b"Expect: 100-continue\r\n" + head + b"\r\n\r\n"
    received = exchange(gunicorn, head, body)
    assert statuses(received) == [100, 200]
    assert content(received)["body"] == "hello"


def test_a_request_instead_of_an_expected_body_is_not_read_as_the_body(
    gunicorn: Gunicorn,
) -> None:
    """A client that gets 404 instead of 100 need not send the body."""
    head = b"POST /missing HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(GET_LAST)
    assert statuses(exchange_after_response(gunicorn, head, GET_LAST)) == [404]


def test_a_client_that_half_closes_gets_its_responses(gunicorn: Gunicorn) -> None:
    slow = b"GET /slow/0.2 HTTP/1.1\r\n" + HOST + b"\r\n"
    received = exchange(gunicorn, slow + slow, half_close=True)
    assert statuses(received) == [200, 200]
    assert received.endswith(b'"done"')


def test_a_client_that_half_closes_in_its_body_gets_400(gunicorn: Gunicorn) -> None:
    request = POST + HOST + b"Content-Length: 10\r\n\r\nhello"
    assert statuses(exchange(gunicorn, request, half_close=True)) == [400]


@pytest.mark.parametrize(
    ("path", "status"), [(b"/unread", 413), (b"/echo", 413), (b"/missing", 404)]
)
@pytest.mark.parametrize(
    "length",
    [b"Content-Length: 20000000\r\n\r\n", CHUNKED + b"\r\n1312d00\r\n"],
    ids=["Content-Length", "chunks"],
)
def test_a_client_that_sends_all_before_it_reads_gets_an_early_response(
    gunicorn: Gunicorn, path: bytes, status: int, length: bytes
) -> None:
    if path == b"/unread" and length.startswith(CHUNKED):
        status = 200  # the application does not read the body, so its size is not checked
    head = b"POST %s HTTP/1.1\r\n" % path + HOST + length
    assert statuses(exchange(gunicorn, head + 20 * ONE_MB)) == [status]


def test_a_client_that_never_stops_sending_is_cut_off(gunicorn: Gunicorn) -> None:
    with connect(gunicorn.url) as connection:
        connection.sendall(POST + HOST + b"Content-Length: 1000000000\r\n\r\n")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            send_one_gb(connection)


def send_one_gb(connection: socket.socket) -> None:
    for _ in range(1000):
        connection.sendall(ONE_MB)


def test_a_small_unread_body_does_not_cost_the_connection(gunicorn: Gunicorn) -> None:
    head = b"POST /missing HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n"
    assert statuses(exchange(gunicorn, head, b"hello" + GET_LAST)) == [404, 200]


def test_an_operation_can_accept_a_body_above_max_body_size(gunicorn: Gunicorn) -> None:
    body = b"x" * UPLOAD_SIZE
    assert gunicorn.client.post("/echo", content=body).json()["body"] == body.decode()


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        pytest.param(414, b"GET /" + b"x" * 27 + b" HTTP/1.1\r\n" + HOST + b"\r\n", id="line"),
        pytest.param(431, GET + HOST + b"X: " + b"x" * 50 + b"\r\n\r\n", id="long header"),
        pytest.param(431, GET + HOST + b"X: x\r\n" * 6 + b"\r\n", id="7 headers"),
        pytest.param(200, GET + LAST + b"X: " + b"x" * 49 + b"\r\n\r\n", id="allowed"),
    ],
)
def test_the_limits_of_gunicorn_apply(
    impatient_gunicorn: Gunicorn, status: int, request_: bytes
) -> None:
    assert statuses(exchange(impatient_gunicorn, request_)) == [status]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(b"", [], id="silent"),
        pytest.param(b"\r\n", [], id="an empty line"),
        pytest.param(b"GET /version HT", [408], id="in the request line"),
        pytest.param(GET + b"Host: a", [408], id="in the head"),
        pytest.param(GET + HOST + b"\r\n", [200], id="kept alive"),
        pytest.param(GET + HOST + b"\r\nGET /", [200, 408], id="in the second head"),
        pytest.param(POST + HOST + b"Content-Length: 9\r\n\r\nx", [408], id="in the body"),
        pytest.param(POST + HOST + CHUNKED + b"\r\n5\r\nhello\r\n", [408], id="in the chunks"),
        pytest.param(
            b"POST /missing HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nx",
            [404],
            id="in a body that nobody reads",
        ),
    ],
)
def test_a_client_that_stops_sending_is_cut_off(
    impatient_gunicorn: Gunicorn, request_: bytes, expected: list[int]
) -> None:
    with connect(impatient_gunicorn.url) as connection:
        connection.sendall(request_)
        assert statuses(read_all(connection)) == expected


def test_the_memory_of_responses_that_are_not_read_is_limited() -> None:
    """The connections that have been slow the longest are aborted, and the last one is served."""
    request = b"GET /large?size=%d HTTP/1.1\r\n" % UNREAD_RESPONSE_SIZE + LAST + b"\r\n"
    with (
        running_gunicorn(server_environment(), APP_WITH_TEST_ROUTES) as server,
        ExitStack() as connections,
    ):
        peak = peak_memory(server.get_worker())
        for _ in range(30):
            connection = connections.enter_context(connect(server.url))
            # Otherwise the kernel would buffer even more of the response.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.sendall(request)
            received = connection.recv(100)
        growth = peak_memory(server.get_worker()) - peak
        assert growth < UNSENT_BYTES + 2 * UNREAD_RESPONSE_SIZE + MEMORY_TOLERANCE_BYTES
        received += read_all(connection)
        assert received.endswith(b"\r\n\r\n" + b"x" * UNREAD_RESPONSE_SIZE)
        warnings = [line for line in server.read_lines() if line["level"] == "WARNING"]
        assert warnings[0]["message"].startswith("too many unread responses")


def test_a_slow_response_is_not_cut_off(impatient_gunicorn: Gunicorn) -> None:
    request = b"GET /slow/3 HTTP/1.1\r\n" + LAST + b"\r\n"
    assert statuses(exchange(impatient_gunicorn, request)) == [200]


def test_a_body_that_times_out_has_a_request_id_and_an_access_log_line(
    impatient_gunicorn: Gunicorn,
) -> None:
    received = exchange(impatient_gunicorn, POST + HOST + b"Content-Length: 9\r\n\r\nx")
    request_id = content(received)["request_id"]
    assert b"connection: close\r\n" in received

    def read_lines() -> list[dict[str, Any]]:
        lines = log_lines(impatient_gunicorn)
        return [line for line in lines if line["request_id"] == request_id]

    # The client may receive the response before the line is written.
    wait_until(lambda: bool(read_lines()), 10, "the access log line")
    [line] = read_lines()
    assert (line["message"], line["status"]) == ("request", 408)


def test_a_refused_request_is_logged_and_counted(gunicorn: Gunicorn) -> None:
    def refused_requests() -> float:
        metrics = gunicorn.client.get("/metrics").text
        counts = re.findall(
            r'refused_requests_total{http_response_status_code="431"} (.*)', metrics
        )
        return sum(float(count) for count in counts)

    count = refused_requests()
    for _ in range(50):
        exchange_at_once(gunicorn, GET + HOST * 101 + b"\r\n")
    assert refused_requests() - count == 50
    detail = "The request has more than 100 headers."
    lines = [line for line in log_lines(gunicorn) if line.get("detail") == detail]
    assert 0 < len(lines) < 50  # at most one a second
    assert lines[-1]["message"] == "request refused"
    assert (lines[-1]["status"], lines[-1]["client"]) == (431, "127.0.0.1")


def exchange_at_once(server: Gunicorn, request: bytes) -> bytes:
    with connect(server.url) as connection:
        connection.sendall(request)
        return read_all(connection)


def log_lines(server: Gunicorn) -> list[dict[str, Any]]:
    """The log lines of requests."""
    lines = [json.loads(line) for line in server.stdout.read_text().splitlines()]
    return [line for line in lines if "request_id" in line]


@pytest.mark.parametrize(
    "request_",
    [b"", b"GET / HT", POST + HOST + b"Content-Length: 9\r\n\r\nx", GET + HOST + b"\r\n"],
    ids=["silent", "head", "body", "kept alive"],
)
def test_idle_connections_leave_file_descriptors_for_probes(request_: bytes) -> None:
    with (
        running_gunicorn(server_environment(), APP_WITH_TEST_ROUTES) as server,
        ExitStack() as connections,
        httpx.Client(base_url=server.url, timeout=20) as client,
    ):
        resource.prlimit(server.get_worker(), resource.RLIMIT_NOFILE, (64, 64))
        for _ in range(100):
            connections.enter_context(connect(server.url)).sendall(request_)
        for _ in range(10):
            assert client.get("/health").status_code == 200
        warnings = [line for line in server.stdout.read_text().splitlines() if "WARNING" in line]
        assert "too many connections" in warnings[0]
