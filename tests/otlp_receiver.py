"""A receiver of OTLP over HTTP, in the place of a collector."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class ReceivedSpan:
    """A span, with its ids in hexadecimal, its start in nanoseconds and its resource."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]
    resource: dict[str, str]
    began_at: int
    is_error: bool


@dataclass
class OtlpReceiver:
    """What was received. It responds with `status`, after `may_respond` is set."""

    url: str
    status: int = 200
    may_respond: Event = field(default_factory=Event)
    requests: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def spans(self) -> list[ReceivedSpan]:
        """All spans, in the order in which they began."""
        spans = [span for body in self.bodies for span in _decode(body)]
        return sorted(spans, key=lambda span: span.began_at)

    def span_names(self) -> list[str]:
        return [span.name for span in self.spans()]

    def find(self, name: str) -> ReceivedSpan:
        """The only span with this name."""
        (span,) = [span for span in self.spans() if span.name == name]
        return span


def _decode(body: bytes) -> Iterator[ReceivedSpan]:
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _to_dict(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield ReceivedSpan(
                    name=span.name,
                    kind=span.kind,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    attributes=_to_dict(span.attributes),
                    resource=resource,
                    began_at=span.start_time_unix_nano,
                    is_error=span.status.code == span.status.STATUS_CODE_ERROR,
                )


def _to_dict(attributes: Any) -> dict[str, str]:
    values = {}
    for attribute in attributes:
        kind = attribute.value.WhichOneof("value")
        values[attribute.key] = str(getattr(attribute.value, kind))
    return values


@contextmanager
def running_receiver() -> Iterator[OtlpReceiver]:
    """A receiver on a free port, until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append({"path": self.path, **headers})
            receiver.may_respond.wait()
            if receiver.status == 200:
                receiver.bodies.append(body)
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = OtlpReceiver(f"http://127.0.0.1:{server.server_port}")
    receiver.may_respond.set()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.may_respond.set()
        server.shutdown()
        thread.join()
        server.server_close()
