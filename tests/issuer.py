"""An issuer of access tokens: real keys, and their key set on an HTTP server on this machine."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from threading import Event, Thread
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
Jwk = dict[str, Any]

AUDIENCE = "things-api"
SUBJECT = "user-1"
DISCOVERY_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/keys"


def generate_key(algorithm: str) -> PrivateKey:
    """A new private key for an algorithm."""
    if algorithm == "RS256":
        return generate_rsa_key(public_exponent=65537, key_size=2048)
    if algorithm == "ES256":
        return generate_private_key(SECP256R1())
    return Ed25519PrivateKey.generate()


def to_jwk(key: PrivateKey, **members: Any) -> Jwk:
    """The public key as a JSON Web Key, with further members."""
    if isinstance(key, RSAPrivateKey):
        jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, EllipticCurvePrivateKey):
        jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return jwk | members


def claims_of(issuer: str, **claims: Any) -> dict[str, Any]:
    """The claims of a valid token, replaced by `claims`. None removes a claim."""
    now = int(time())
    defaults = {"iss": issuer, "aud": AUDIENCE, "sub": SUBJECT, "iat": now, "exp": now + 60}
    return {name: value for name, value in (defaults | claims).items() if value is not None}


class Issuer:
    """Signs tokens. A test can change what its server sends: `documents`, `status`, `redirects`.

    While `may_respond` is not set, the server does not respond. `requests` has the paths of all
    requests.
    """

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, PrivateKey]] = {}
        self.documents: dict[str, Any] = {}
        self.status = 200
        self.redirects: dict[str, str] = {}
        self.requests: list[str] = []
        self.request_headers: list[dict[str, str]] = []
        self.may_respond = Event()
        self.may_respond.set()
        self.url = ""

    def use_key(self, key_id: str, algorithm: str = "ES256") -> None:
        """Sign with a new key and forget all others."""
        self.keys = {}
        self.add_key(key_id, algorithm)

    def add_key(self, key_id: str, algorithm: str = "ES256") -> None:
        """Publish one more key."""
        self.keys[key_id] = (algorithm, generate_key(algorithm))
        self.publish(*[to_jwk(key, kid=kid) for kid, (_, key) in self.keys.items()])

    def publish(self, *keys: Any) -> None:
        """Let the key set have exactly these keys."""
        self.documents[JWKS_PATH] = {"keys": list(keys)}

    def sign(self, key_id: str = "", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token with these claims, signed with this key or with the first one."""
        key_id = key_id or next(iter(self.keys))
        algorithm, key = self.keys[key_id]
        headers = {"kid": key_id} | (header or {})
        return jwt.encode(claims_of(self.url, **claims), key, algorithm, headers)

    @property
    def fetches(self) -> int:
        """How often the keys were fetched."""
        return self.requests.count(JWKS_PATH)


@contextmanager
def running_issuer(tls: SSLContext | None = None) -> Iterator[Issuer]:
    """An issuer with one key, `first`, for ES256."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.requests.append(self.path)
            issuer.request_headers.append(dict(self.headers))
            issuer.may_respond.wait(30)
            if self.path in issuer.redirects:
                self.send_response(302)
                self.send_header("Location", issuer.redirects[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            document = issuer.documents.get(self.path)
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(issuer.status if document is not None else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            # The client closes the connection without reading a document that is too large.
            try:
                self.wfile.write(body)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    issuer.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    issuer.documents[DISCOVERY_PATH] = {
        "issuer": issuer.url,
        "jwks_uri": f"{issuer.url}{JWKS_PATH}",
    }
    issuer.use_key("first")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield issuer
    finally:
        issuer.may_respond.set()
        server.shutdown()
        server.server_close()
        thread.join()
