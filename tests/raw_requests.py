"""Requests as bytes, valid and invalid ones, and the status of the server's response.

The same tables are sent to Gunicorn (tests/integration) and to the image (tests/container). The
server has to close the connection after each request. The valid requests have `Connection: close`
or HTTP/1.0, and after an invalid request the beginning of the next one is unknown.
"""

import json
import re
import socket
from time import sleep
from typing import Any, TypeAlias
from urllib.parse import urlsplit

Cases: TypeAlias = dict[str, tuple[int, list[bytes]]]
"""The status and the segments of a request, by a description."""

SEGMENT_PAUSE_SECONDS = 0.05
"""Usually long enough for the server to read one segment before the next one arrives. No test fails
if the server reads both at once.
"""

BODY_PATH = b"/echo"
"""A path whose operation reads the body, in the application that tests/integration serves."""

HOST = b"Host: api\r\n"
LAST = b"Host: api\r\nConnection: close\r\n"
"""The headers of a request after which the server closes the connection."""

GET = b"GET /version HTTP/1.1\r\n"
GET_LAST = GET + LAST + b"\r\n"
POST = b"POST %s HTTP/1.1\r\n" % BODY_PATH
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED_PATH = "/smuggled"
SMUGGLED = b"GET %s HTTP/1.1\r\n" % SMUGGLED_PATH.encode() + LAST + b"\r\n"
"""Sent behind an invalid request. A server that is not strict would execute it."""


def connect(url: str) -> socket.socket:
    """A connection to the server with this URL."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(url: str, *segments: bytes, half_close: bool = False) -> bytes:
    """Send the segments, and return all that the server sends until it closes the connection."""
    with connect(url) as connection:
        for number, segment in enumerate(segments):
            if number > 0:
                sleep(SEGMENT_PAUSE_SECONDS)
            connection.sendall(segment)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def statuses(received: bytes) -> list[int]:
    """The status of each response."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)]


def content(received: bytes) -> Any:
    """The JSON content of the last response."""
    return json.loads(received.rpartition(b"\r\n\r\n")[2])


def with_length(body: bytes) -> bytes:
    """The end of a head with Content-Length, and the body."""
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


VALID_HEADS: Cases = {
    "HTTP/1.0 without Host": (200, [b"GET /health HTTP/1.0\r\n\r\n"]),
    "empty Host": (200, [GET, b"Host:\r\nConnection: close\r\n\r\n"]),
    "IPv6 Host": (200, [GET, b"Host: [::1]:8000\r\nConnection: close\r\n\r\n"]),
    "Host with an IPv4 address in IPv6": (
        200,
        [GET, b"Host: [::ffff:10.0.0.1]\r\nConnection: close\r\n\r\n"],
    ),
    "percent-encoded Host": (200, [GET, b"Host: a%C3%A9\r\nConnection: close\r\n\r\n"]),
    "absolute form": (200, [b"GET http://api/version HTTP/1.1\r\n", LAST, b"\r\n"]),
    "absolute form with another Host": (
        200,  # the header is ignored (RFC 9112, section 3.2.2)
        [b"GET http://other:81/version HTTP/1.1\r\n", LAST, b"\r\n"],
    ),
    "absolute form without a path": (404, [b"GET http://api HTTP/1.1\r\n", LAST, b"\r\n"]),
    "header of 8000 bytes": (200, [GET, LAST, b"X-Long: " + b"x" * 8000 + b"\r\n\r\n"]),
    "100 headers": (200, [GET, LAST, b"X-Many: x\r\n" * 98, b"\r\n"]),
    "tab around a value": (200, [GET, LAST, b"X:\tx\t\r\n\r\n"]),
    "bytes above 127 in a value": (200, [GET, LAST, b"X: \x80\xff\r\n\r\n"]),
    "WebSocket, which no route serves": (
        200,
        [
            GET,
            b"Host: api\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n",
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        ],
    ),
    "empty lines before": (200, [b"\r\n\r\n", GET_LAST]),
}

VALID_BODIES = {
    "extension of a chunk": [POST, LAST, CHUNKED, b"\r\n5;a=b\r\nhello\r\n0\r\n\r\n"],
    "quoted extension of a chunk": [POST, LAST, CHUNKED, b'\r\n5;a="b"\r\nhello\r\n0\r\n\r\n'],
    "zeros before the size of a chunk": [POST, LAST, CHUNKED, b"\r\n0005\r\nhello\r\n0\r\n\r\n"],
    "trailer": [POST, LAST, CHUNKED, b"\r\n5\r\nhello\r\n0\r\nX-Trailer: x\r\n\r\n"],
    "coding in upper case": [
        POST,
        LAST,
        b"Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
    "zeros before Content-Length": [POST, LAST, b"Content-Length: 005\r\n\r\nhello"],
    "whitespace behind values": [
        POST,
        b"Host: api \t\r\nConnection: close \r\nTransfer-Encoding: chunked \r\n",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
}
"""Requests with the body `hello`."""

INVALID_HEADS: Cases = {
    "no Host": (400, [GET, b"Connection: close\r\n\r\n"]),
    "two Hosts": (400, [GET, HOST, HOST, b"\r\n"]),
    "two Hosts in HTTP/1.0": (400, [b"GET /health HTTP/1.0\r\n", HOST, HOST, b"\r\n"]),
    "Host with a space": (400, [GET, b"Host: a b\r\n\r\n"]),
    "Host with a path": (400, [GET, b"Host: a/b\r\n\r\n"]),
    "Host with a user": (400, [GET, b"Host: user@a\r\n\r\n"]),
    "Host with a port that is no number": (400, [GET, b"Host: a:b\r\n\r\n"]),
    "Host with a percent sign": (400, [GET, b"Host: a%zz\r\n\r\n"]),
    "Host with a number in brackets": (400, [GET, b"Host: [1]\r\n\r\n"]),
    "Host with colons in brackets": (400, [GET, b"Host: [::::]\r\n\r\n"]),
    "absolute form with a number in brackets": (
        400,
        [b"GET http://[1]/version HTTP/1.1\r\n", HOST, b"\r\n"],
    ),
    "absolute form without Host": (400, [b"GET http://api/version HTTP/1.1\r\n", b"\r\n"]),
    "absolute form with two Hosts": (
        400,
        [b"GET http://api/version HTTP/1.1\r\n", HOST, HOST, b"\r\n"],
    ),
    "absolute form with a user": (400, [b"GET http://user@a/ HTTP/1.1\r\n", HOST, b"\r\n"]),
    "absolute form without a host": (400, [b"GET http:///version HTTP/1.1\r\n", HOST, b"\r\n"]),
    "absolute form of another scheme": (400, [b"GET ftp://a/ HTTP/1.1\r\n", HOST, b"\r\n"]),
    "authority form": (400, [b"GET api:80 HTTP/1.1\r\n", HOST, b"\r\n"]),
    "CONNECT": (501, [b"CONNECT api:443 HTTP/1.1\r\nHost: api:443\r\n\r\n"]),
    "HTTP/2.0": (505, [b"GET / HTTP/2.0\r\n", HOST, b"\r\n"]),
    "HTTP/0.9": (505, [b"GET / HTTP/0.9\r\n", HOST, b"\r\n"]),
    "HTTP/0.9 without a version": (505, [b"GET /version\r\n", HOST, b"\r\n"]),
    "HTTP/1.10": (400, [b"GET /version HTTP/1.10\r\n", HOST, b"\r\n"]),
    "version in lower case": (400, [b"GET /version http/1.1\r\n", HOST, b"\r\n"]),
    "HTTP/2 with prior knowledge": (400, [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]),
    "TLS": (400, [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]),
    "unknown method": (400, [b"get /version HTTP/1.1\r\n", HOST, b"\r\n"]),
    "space in the target": (400, [b"GET /ver sion HTTP/1.1\r\n", HOST, b"\r\n"]),
    "NUL in the target": (400, [b"GET /ver\x00sion HTTP/1.1\r\n", HOST, b"\r\n"]),
    "tabs in the request line": (400, [b"GET\t/version\tHTTP/1.1\r\n", HOST, b"\r\n"]),
    "long request line": (414, [b"GET /", b"x" * 4090, b" HTTP/1.1\r\n", HOST, b"\r\n"]),
    "long header": (431, [GET, HOST, b"X-Long: " + b"x" * 8190 + b"\r\n\r\n"]),
    "long name of a header": (431, [GET, HOST, b"X" * 8190 + b": x\r\n\r\n"]),
    "101 headers": (431, [GET, HOST, b"X-Many: x\r\n" * 100, b"\r\n"]),
    "Content-Length, then chunked": (
        400,
        [POST, HOST, b"Content-Length: 5\r\n", CHUNKED, b"\r\n0\r\n\r\n"],
    ),
    "chunked, then Content-Length": (
        400,
        [POST, HOST, CHUNKED, b"Content-Length: 5\r\n\r\n0\r\n\r\n"],
    ),
    "two lengths": (400, [POST, HOST, b"Content-Length: 6\r\n", with_length(b"hello")]),
    "two equal lengths": (400, [POST, HOST, b"Content-Length: 5\r\n", with_length(b"hello")]),
    "list of lengths": (400, [POST, HOST, b"Content-Length: 5, 5\r\n\r\nhello"]),
    "two lengths in a line": (400, [POST, HOST, b"Content-Length: 5 5\r\n\r\nhello"]),
    "length with a sign": (400, [POST, HOST, b"Content-Length: +5\r\n\r\nhello"]),
    "negative length": (400, [POST, HOST, b"Content-Length: -5\r\n\r\nhello"]),
    "length with an underscore": (400, [POST, HOST, b"Content-Length: 5_0\r\n\r\nhello"]),
    "hexadecimal length": (400, [POST, HOST, b"Content-Length: 0x5\r\n\r\nhello"]),
    "fractional length": (400, [POST, HOST, b"Content-Length: 5.0\r\n\r\nhello"]),
    "length in Arabic digits": (
        400,
        [POST, HOST, "Content-Length: \u0665\r\n\r\nhello".encode()],
    ),
    "empty length": (400, [POST, HOST, b"Content-Length: \r\n\r\nhello"]),
    "length of 2^64": (400, [POST, HOST, b"Content-Length: 18446744073709551616\r\n\r\n"]),
    "chunked twice": (400, [POST, HOST, CHUNKED, CHUNKED, b"\r\n0\r\n\r\n"]),
    "chunked twice in a line": (
        400,
        [POST, HOST, b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"],
    ),
    "chunked is not last": (400, [POST, HOST, b"Transfer-Encoding: chunked, gzip\r\n\r\n"]),
    "gzip and chunked": (501, [POST, HOST, b"Transfer-Encoding: gzip, chunked\r\n\r\n"]),
    "identity": (501, [POST, HOST, b"Transfer-Encoding: identity\r\n\r\n"]),
    "unknown coding": (501, [POST, HOST, b"Transfer-Encoding: xchunked\r\n\r\n"]),
    "quoted coding": (501, [POST, HOST, b'Transfer-Encoding: "chunked"\r\n\r\n']),
    "empty coding": (400, [POST, HOST, b"Transfer-Encoding:\r\n\r\n"]),
    "coding with a parameter": (501, [POST, HOST, b"Transfer-Encoding: chunked;a=b\r\n\r\n"]),
    "vertical tab before chunked": (
        400,
        [POST, HOST, b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"],
    ),
    "chunked in HTTP/1.0": (
        501,
        [b"POST %s HTTP/1.0\r\n" % BODY_PATH, CHUNKED, b"\r\n0\r\n\r\n"],
    ),
    "folded header": (400, [POST, HOST, b"X-Folded: a\r\n b\r\n", with_length(b"")]),
    "header folded with a tab": (400, [POST, HOST, b"X-Folded: a\r\n\tb\r\n", with_length(b"")]),
    "folded Transfer-Encoding": (400, [POST, HOST, b"Transfer-Encoding:\r\n chunked\r\n\r\n"]),
    "space before the first header": (400, [POST, b" X: a\r\n", HOST, with_length(b"")]),
    "space before the colon": (400, [POST, HOST, b"Content-Length : 5\r\n\r\nhello"]),
    "tab before the colon": (400, [POST, HOST, b"Transfer-Encoding\t: chunked\r\n\r\n"]),
    "space in the name of a header": (400, [POST, HOST, b"X Y: a\r\n", with_length(b"")]),
    "bytes above 127 in the name of a header": (400, [GET, HOST, b"X\xff: a\r\n\r\n"]),
    "header without a name": (400, [POST, HOST, b": 5\r\n", with_length(b"")]),
    "header without a colon": (400, [POST, HOST, b"Name\r\n", with_length(b"")]),
    "lines that end in LF": (400, [b"GET /version HTTP/1.1\nHost: api\n\n"]),
    "lines that end in CR": (400, [b"GET /version HTTP/1.1\rHost: api\r\r"]),
    "head that ends in LF": (400, [GET, HOST, b"\n"]),
    "CR in a header": (400, [GET, HOST, b"X: a\rb\r\n\r\n"]),
    "CR before CRLF": (400, [GET, HOST, b"X: a\r\r\n\r\n"]),
    "NUL in a header": (400, [GET, HOST, b"X: a\x00b\r\n\r\n"]),
    "NUL in the name of a header": (400, [GET, HOST, b"X\x00: a\r\n\r\n"]),
    "control character in a header": (400, [GET, HOST, b"X: a\x01b\r\n\r\n"]),
}

INVALID_BODIES: Cases = {
    "chunks that end in LF": (400, [POST, HOST, CHUNKED, b"\r\n5\nhello\n0\n\n"]),
    "chunk that ends in CR": (400, [POST, HOST, CHUNKED, b"\r\n5\r\nhello\r0\r\n\r\n"]),
    "extension that ends in LF": (400, [POST, HOST, CHUNKED, b"\r\n5;a\nhello\r\n0\r\n\r\n"]),
    "CR in an extension": (400, [POST, HOST, CHUNKED, b"\r\n5;a\rb\r\nhello\r\n0\r\n\r\n"]),
    "NUL in an extension": (400, [POST, HOST, CHUNKED, b"\r\n5;a\x00b\r\nhello\r\n0\r\n\r\n"]),
    "size that is not hexadecimal": (400, [POST, HOST, CHUNKED, b"\r\nxyz\r\nhello\r\n"]),
    "empty size": (400, [POST, HOST, CHUNKED, b"\r\n\r\nhello\r\n"]),
    "size with a sign": (400, [POST, HOST, CHUNKED, b"\r\n+5\r\nhello\r\n"]),
    "negative size": (400, [POST, HOST, CHUNKED, b"\r\n-5\r\nhello\r\n"]),
    "hexadecimal prefix of a size": (400, [POST, HOST, CHUNKED, b"\r\n0x5\r\nhello\r\n"]),
    "space before a size": (400, [POST, HOST, CHUNKED, b"\r\n 5\r\nhello\r\n"]),
    "space after a size": (400, [POST, HOST, CHUNKED, b"\r\n5 \r\nhello\r\n"]),
    "size of 2^64": (400, [POST, HOST, CHUNKED, b"\r\n10000000000000000\r\nhello"]),
    "size of 10,000 digits": (400, [POST, HOST, CHUNKED, b"\r\n" + b"1" * 10_000 + b"\r\nhello"]),
    "chunk that is longer than its size": (400, [POST, HOST, CHUNKED, b"\r\n5\r\nhelloX"]),
    "chunk without CRLF behind it": (400, [POST, HOST, CHUNKED, b"\r\n5\r\nhello0\r\n\r\n"]),
    "trailer without a colon": (400, [POST, HOST, CHUNKED, b"\r\n0\r\nX\r\n\r\n"]),
    "folded trailer": (400, [POST, HOST, CHUNKED, b"\r\n0\r\nX: a\r\n b\r\n\r\n"]),
    "trailer that ends in LF": (400, [POST, HOST, CHUNKED, b"\r\n0\r\nX: a\n\r\n"]),
    "Content-Length as a trailer": (
        400,
        [POST, HOST, CHUNKED, b"\r\n5\r\nhello\r\n0\r\nContent-Length: 7\r\n\r\n"],
    ),
    "Transfer-Encoding as a trailer": (
        400,
        [POST, HOST, CHUNKED, b"\r\n5\r\nhello\r\n0\r\n", CHUNKED, b"\r\n"],
    ),
}
"""Requests whose error is in the body. The operation at BODY_PATH has to read it."""
