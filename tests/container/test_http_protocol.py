"""What the image does with the bytes that clients send. tests/integration tests more of it."""

import json
import subprocess
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from fastapi_k8s.security_headers import DEFAULT_HEADERS
from tests.container.conftest import Application, RunApplication
from tests.raw_requests import (
    BODY_PATH,
    INVALID_BODIES,
    INVALID_HEADS,
    SMUGGLED,
    SMUGGLED_PATH,
    VALID_BODIES,
    VALID_HEADS,
    content,
    exchange,
    statuses,
)
from tools.dev.servers import wait_until

ITEMS_PATH = b"/items"  # example


@pytest.fixture(scope="module")
def application(run_application: RunApplication) -> Iterator[Application]:
    """A container that the tests share. It needs no database."""
    with run_application() as application:
        yield application


def send(application: Application, segments: list[bytes]) -> bytes:
    """Send a request in one segment, and return all until the connection is closed."""
    return exchange(str(application.client.base_url), b"".join(segments))


def send_with_smuggled(application: Application, status: int, segments: list[bytes]) -> None:
    """Send another request behind an invalid one, and check that only the first gets a response."""
    received = send(application, [*segments, SMUGGLED])
    assert statuses(received) == [status]
    assert content(received)["status"] == status
    for name, value in ((b"connection", b"close"), *DEFAULT_HEADERS):
        assert received.count(b"%s: %s\r\n" % (name, value)) == 1


def read_logged_paths(application: Application) -> set[str]:
    """The paths in the access log."""
    command = ["docker", "logs", application.container.id]
    output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    lines = [json.loads(line) for line in output.splitlines()]
    return {line["path"] for line in lines if "path" in line}


def check_that_nothing_was_executed(application: Application) -> None:
    """Check the access log, which has each request that the application got, up to this moment."""
    last_path = f"/{uuid4()}"
    assert application.client.get(last_path).status_code == httpx.codes.NOT_FOUND
    wait_until(lambda: last_path in read_logged_paths(application), 20, "the last access log line")
    assert SMUGGLED_PATH not in read_logged_paths(application)


@pytest.mark.parametrize(("status", "segments"), VALID_HEADS.values(), ids=VALID_HEADS)
def test_a_valid_head_is_accepted(
    application: Application, status: int, segments: list[bytes]
) -> None:
    assert statuses(send(application, segments)) == [status]


@pytest.mark.parametrize(("status", "segments"), INVALID_HEADS.values(), ids=INVALID_HEADS)
def test_an_invalid_head_is_refused_and_the_connection_closes(
    application: Application, status: int, segments: list[bytes]
) -> None:
    send_with_smuggled(application, status, segments)


def test_no_request_behind_an_invalid_head_is_executed(application: Application) -> None:
    for status, segments in INVALID_HEADS.values():
        send_with_smuggled(application, status, segments)
    check_that_nothing_was_executed(application)


# example
@pytest.mark.parametrize("segments", VALID_BODIES.values(), ids=VALID_BODIES)
def test_a_valid_body_is_read(application: Application, segments: list[bytes]) -> None:
    """The response is 415 because the body has no media type."""
    request = b"".join(segments).replace(BODY_PATH, ITEMS_PATH)
    assert statuses(send(application, [request])) == [415]


@pytest.mark.parametrize(("status", "segments"), INVALID_BODIES.values(), ids=INVALID_BODIES)
def test_an_invalid_body_is_refused_and_the_connection_closes(
    application: Application, status: int, segments: list[bytes]
) -> None:
    request = b"".join(segments).replace(BODY_PATH, ITEMS_PATH)
    send_with_smuggled(application, status, [request])


def test_no_request_behind_an_invalid_body_is_executed(application: Application) -> None:
    for status, segments in INVALID_BODIES.values():
        request = b"".join(segments).replace(BODY_PATH, ITEMS_PATH)
        send_with_smuggled(application, status, [request])
    check_that_nothing_was_executed(application)


# end example
