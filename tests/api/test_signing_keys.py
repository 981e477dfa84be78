"""The keys of the issuer are fetched early, again, and not too often, and outlive an outage."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.error import URLError

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fastapi_k8s import NAME, signing_keys
from fastapi_k8s.signing_keys import MAX_DOCUMENT_BYTES, fetch_signing_keys
from tests.api.auth_app import bearer, serving_things
from tests.conftest import LogLines, MakeSettings, Serve
from tests.issuer import (
    DISCOVERY_PATH,
    JWKS_PATH,
    Issuer,
    generate_key,
    running_issuer,
    to_jwk,
)

CONCURRENT_REQUESTS = 50
CALLER = "/things/caller"
NO_KEY = "no usable key is for one of the algorithms"


@pytest.fixture
async def things(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that has fetched the keys of the issuer."""
    async with serving_things(issuer, make_settings, serve) as client:
        assert await get_status(client, issuer.sign()) == 200
        yield client


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch, issuer: Issuer) -> None:
    """Wait for a slow issuer for a short time, in requests and at the end of the test."""
    monkeypatch.setattr(signing_keys, "FETCH_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(signing_keys, "SOCKET_TIMEOUT_SECONDS", 1)


@pytest.fixture
def frequent_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch again as soon as there is a reason."""
    monkeypatch.setattr(signing_keys, "MIN_FETCH_INTERVAL_SECONDS", 0)


@pytest.fixture
def frequent_refreshes(monkeypatch: pytest.MonkeyPatch, frequent_fetches: None) -> None:
    """Fetch again without a reason, after a short time."""
    monkeypatch.setattr(signing_keys, "REFRESH_INTERVAL_SECONDS", 0.05)


async def get_status(client: httpx.AsyncClient, token: str) -> int:
    return (await client.get(CALLER, headers=bearer(token))).status_code


async def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until the condition is met."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def wait_for_status(client: httpx.AsyncClient, token: str, status: int) -> None:
    """Poll until a request with the token has this status."""
    async with asyncio.timeout(20):
        while await get_status(client, token) != status:
            await asyncio.sleep(0.02)


async def test_the_keys_are_fetched_at_the_start(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve
) -> None:
    async with serving_things(issuer, make_settings, serve):
        await wait_until(lambda: issuer.fetches == 1)
    assert issuer.requests == [DISCOVERY_PATH, JWKS_PATH]
    # Content delivery networks refuse `Python-urllib`.
    assert {headers["User-Agent"] for headers in issuer.request_headers} == {NAME}


async def test_the_keys_are_fetched_from_jwt_jwks_url_if_it_is_set(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve
) -> None:
    settings = {"jwt_issuer": "https://issuer.example", "jwt_jwks_url": f"{issuer.url}{JWKS_PATH}"}
    async with serving_things(issuer, make_settings, serve, **settings) as client:
        assert await get_status(client, issuer.sign(iss="https://issuer.example")) == 200
    assert issuer.requests == [JWKS_PATH]


async def test_an_issuer_may_have_a_path_and_a_slash_at_the_end(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve
) -> None:
    """Auth0's issuers end with a slash, and Keycloak's have a path."""
    url = f"{issuer.url}/realms/one/"
    document = issuer.documents[DISCOVERY_PATH] | {"issuer": url}
    issuer.documents[f"/realms/one{DISCOVERY_PATH}"] = document
    async with serving_things(issuer, make_settings, serve, jwt_issuer=url) as client:
        assert await get_status(client, issuer.sign(iss=url)) == 200


@pytest.mark.usefixtures("frequent_fetches")
async def test_a_token_that_is_signed_with_a_new_key_is_accepted(
    things: httpx.AsyncClient, issuer: Issuer
) -> None:
    issuer.add_key("second")
    assert await get_status(things, issuer.sign("second")) == 200
    assert await get_status(things, issuer.sign("first")) == 200
    assert issuer.fetches == 2


@pytest.mark.usefixtures("frequent_refreshes")
async def test_tokens_that_are_signed_with_a_revoked_key_are_refused_after_a_while(
    things: httpx.AsyncClient, issuer: Issuer
) -> None:
    token = issuer.sign("first")
    assert await get_status(things, token) == 200
    issuer.use_key("second")
    await wait_for_status(things, token, 401)
    assert await get_status(things, issuer.sign("second")) == 200


async def test_a_flood_of_unknown_key_ids_causes_one_fetch(
    things: httpx.AsyncClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them wait for the same attempt."""
    key = issuer.keys["first"]
    issuer.keys |= {f"unknown-{number}": key for number in range(CONCURRENT_REQUESTS)}
    tokens = [issuer.sign(key_id) for key_id in issuer.keys if key_id != "first"]
    monkeypatch.setattr(signing_keys, "monotonic", lambda: monotonic() + 60)
    issuer.may_respond.clear()
    requests = [asyncio.create_task(get_status(things, token)) for token in tokens]
    await wait_until(lambda: len(issuer.requests) == 3)
    issuer.may_respond.set()
    assert set(await asyncio.gather(*requests)) == {401}
    assert issuer.fetches == 2


async def test_an_unknown_key_id_right_after_a_fetch_causes_none(
    things: httpx.AsyncClient, issuer: Issuer
) -> None:
    issuer.add_key("second")
    response = await things.get(CALLER, headers=bearer(issuer.sign("second")))
    assert response.status_code == 401
    assert response.json()["detail"] == "The access token is signed with an unknown key."
    assert issuer.fetches == 1


@pytest.mark.usefixtures("frequent_refreshes")
async def test_known_keys_stay_while_the_issuer_fails(
    things: httpx.AsyncClient, issuer: Issuer, log_lines: LogLines
) -> None:
    def find_warnings() -> list[dict[str, Any]]:
        return [line for line in log_lines() if line["level"] == "WARNING"]

    issuer.status = 500
    await wait_until(lambda: len(find_warnings()) >= 2)
    assert await get_status(things, issuer.sign()) == 200
    warning = find_warnings()[0]
    assert warning["message"] == "signing keys cannot be fetched"
    assert warning["error"] == "HTTPError: HTTP Error 500: Internal Server Error"


@pytest.mark.usefixtures("frequent_refreshes")
async def test_after_a_failure_the_keys_are_fetched_again_soon(
    things: httpx.AsyncClient,
    issuer: Issuer,
    log_lines: LogLines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise one failure would double the time for which a revoked key is accepted."""

    def count_warnings() -> int:
        return sum(line["level"] == "WARNING" for line in log_lines())

    issuer.status = 500
    monkeypatch.setattr(signing_keys, "MIN_FETCH_INTERVAL_SECONDS", 0.02)
    await wait_until(lambda: count_warnings() >= 1)
    monkeypatch.setattr(signing_keys, "REFRESH_INTERVAL_SECONDS", 3600)
    await wait_until(lambda: count_warnings() >= 4)
    assert await get_status(things, issuer.sign()) == 200


async def test_known_keys_stay_if_nothing_listens_any_more(
    make_settings: MakeSettings, serve: Serve, frequent_refreshes: None, log_lines: LogLines
) -> None:
    with running_issuer() as issuer:
        context = serving_things(issuer, make_settings, serve)
        client = await context.__aenter__()
        assert await get_status(client, issuer.sign()) == 200
    await wait_until(lambda: "Connection refused" in str(log_lines()))
    assert await get_status(client, issuer.sign()) == 200
    await context.__aexit__(None, None, None)


async def test_without_any_key_requests_are_503_until_the_issuer_responds(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve, frequent_refreshes: None
) -> None:
    """A 401 would make clients discard a valid token."""
    issuer.status = 500
    token = issuer.sign()
    async with serving_things(issuer, make_settings, serve) as client:
        response = await client.get(CALLER, headers=bearer(token))
        assert response.status_code == 503
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["retry-after"].isdigit()
        assert "www-authenticate" not in response.headers
        assert await get_status(client, "opaque") == 401
        issuer.status = 200
        await wait_for_status(client, token, 200)


async def test_a_slow_issuer_delays_only_requests_that_need_its_keys_and_not_for_long(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve, short_timeouts: None
) -> None:
    """The event loop is not blocked, and the application stops without waiting for the issuer."""
    issuer.may_respond.clear()
    async with serving_things(issuer, make_settings, serve) as client:
        assert (await client.get("/health")).status_code == 200
        assert await get_status(client, issuer.sign()) == 503
        await wait_until(lambda: issuer.requests == [DISCOVERY_PATH])


@pytest.mark.usefixtures("short_timeouts")
async def test_known_keys_are_used_while_an_issuer_is_slow(
    things: httpx.AsyncClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing_keys, "monotonic", lambda: monotonic() + 60)
    issuer.may_respond.clear()
    issuer.add_key("second")
    assert await get_status(things, issuer.sign("second")) == 401
    await wait_until(lambda: len(issuer.requests) == 3)
    assert await get_status(things, issuer.sign("first")) == 200


async def test_a_request_that_is_cancelled_does_not_cancel_the_fetch(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve
) -> None:
    issuer.may_respond.clear()
    async with serving_things(issuer, make_settings, serve, request_timeout=0.2) as client:
        response = await client.get(CALLER, headers=bearer(issuer.sign()))
        assert response.status_code == 503
        assert "keys" not in response.json()["detail"]
        issuer.may_respond.set()
        await wait_until(lambda: issuer.fetches == 1)
        await wait_for_status(client, issuer.sign(), 200)
    assert issuer.fetches == 1


def publish_at(url: str) -> Callable[[Issuer], None]:
    """A function that lets the issuer name this URL for its keys."""

    def publish(issuer: Issuer) -> None:
        issuer.documents[DISCOVERY_PATH]["jwks_uri"] = url

    return publish


def respond_with(path: str, document: Any) -> Callable[[Issuer], None]:
    """A function that lets the issuer respond with this document."""

    def respond(issuer: Issuer) -> None:
        issuer.documents[path] = document

    return respond


def redirect(issuer: Issuer) -> None:
    """Let the document be elsewhere, where a client that follows redirects finds it."""
    issuer.documents["/moved"] = issuer.documents.pop(DISCOVERY_PATH)
    issuer.redirects[DISCOVERY_PATH] = "/moved"


def name_another_issuer(issuer: Issuer) -> None:
    issuer.documents[DISCOVERY_PATH]["issuer"] += "/other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (name_another_issuer, "JWT_ISSUER is not the issuer '.*/other'"),
        (publish_at("file:///etc/passwd"), "without TLS"),
        (publish_at("ftp://127.0.0.1/keys"), "without TLS"),
        (redirect, "302"),
        (respond_with(DISCOVERY_PATH, {"issuer": None}), "JWT_ISSUER"),
        (respond_with(DISCOVERY_PATH, b"not JSON"), "Expecting value"),
        (respond_with(DISCOVERY_PATH, []), "not a JSON object"),
        (respond_with(JWKS_PATH, b"x" * (MAX_DOCUMENT_BYTES + 1)), "more than"),
        (respond_with(JWKS_PATH, {}), NO_KEY),
        (respond_with(JWKS_PATH, {"keys": {}}), NO_KEY),
        (respond_with(JWKS_PATH, {"keys": 1}), "not iterable"),
        (respond_with(JWKS_PATH, {"keys": [{"kty": "RSA", "n": 1}]}), NO_KEY),
        (respond_with(JWKS_PATH, {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}), NO_KEY),
    ],
)
def test_keys_are_not_taken_from_a_document_that_is_not_right(
    issuer: Issuer, change: Callable[[Issuer], None], message: str
) -> None:
    change(issuer)
    with pytest.raises(Exception, match=message):
        fetch_signing_keys(issuer.url, jwks_url="")


@pytest.mark.parametrize(
    "unusable_key",
    [
        None,
        "text",
        {},
        {"kty": ["EC"]},
        {"kty": "EC", "crv": ["P-256"]},
        {"kty": "EC", "crv": "P-256", "x": 1, "y": None},
        {"kty": "RSA", "alg": ["RS256"]},
        {"kty": "RSA", "n": "AQAB", "e": {}},
        {"kty": "OKP", "crv": "Ed25519", "x": []},
        {"kty": "oct", "alg": {}},
    ],
)
def test_a_key_with_members_of_a_wrong_type_does_not_affect_the_others(
    issuer: Issuer, unusable_key: Any
) -> None:
    _, key = issuer.keys["first"]
    issuer.publish(unusable_key, to_jwk(key, kid="first"), unusable_key)
    [signing_key] = fetch_signing_keys(issuer.url, jwks_url="")
    assert signing_key.key_id == "first"


def test_an_issuer_with_tls_must_not_have_its_keys_without_it(
    issuer: Issuer, tls_issuer: Issuer, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    publish_at(f"{issuer.url}{JWKS_PATH}")(tls_issuer)
    with pytest.raises(ValueError, match="without TLS"):
        fetch_signing_keys(tls_issuer.url, jwks_url="")


def test_the_certificate_of_the_issuer_is_verified(
    tls_issuer: Issuer, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    with pytest.raises(URLError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch_signing_keys(tls_issuer.url, jwks_url="")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    [key] = fetch_signing_keys(tls_issuer.url, jwks_url="")
    assert key.key_id == "first"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a certificate for 127.0.0.1, which no certificate authority has signed."""
    key = generate_key("ES256")
    assert isinstance(key, EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1))
    builder = builder.not_valid_after(now + timedelta(days=1))
    address = x509.IPAddress(ip_address("127.0.0.1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    path = tmp_path / "certificate.pem"
    private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private_key + builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return path


@pytest.fixture
def tls_issuer(certificate: Path) -> Iterator[Issuer]:
    """An issuer with this certificate."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with running_issuer(tls) as issuer:
        yield issuer
