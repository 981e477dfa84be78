"""Which access tokens are valid: a table of valid, forged and odd ones."""

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from time import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fastapi_k8s import access_tokens
from fastapi_k8s.access_tokens import LEEWAY_SECONDS, TokenVerifier
from fastapi_k8s.caller import TokenRefusedError
from tests.conftest import MakeSettings
from tests.issuer import (
    AUDIENCE,
    SUBJECT,
    Issuer,
    claims_of,
    generate_key,
    running_issuer,
    to_jwk,
)

MakeToken = Callable[[Issuer], str]

OTHER_KEY = generate_key("ES256")
WEAK_RSA_KEY = generate_rsa_key(public_exponent=65537, key_size=1024)
P384_KEY = generate_private_key(SECP384R1())
NOT_VALID = "The access token is not valid."
UNKNOWN_KEY = "The access token is signed with an unknown key."
ALGORITHM = "The access token has an algorithm that is not accepted."
EXPIRED = "The access token has expired."
NOT_YET = "The access token is not valid yet."
AUDIENCE_REASON = "The access token is for another audience."
ISSUER_REASON = "The access token is of another issuer."
SUBJECT_REASON = "The access token has no valid subject."


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    """An issuer with a key for each algorithm, and keys that must not be used."""
    with running_issuer() as issuer:
        for algorithm in ("RS256", "ES256", "EdDSA"):
            issuer.add_key(algorithm, algorithm)
        rsa_key = issuer.keys["RS256"][1]
        jwks = [to_jwk(key, kid=kid) for kid, (_, key) in issuer.keys.items() if kid != "first"]
        issuer.publish(
            *jwks,
            {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"},
            to_jwk(OTHER_KEY, kid="encryption", use="enc"),
            to_jwk(issuer.keys["EdDSA"][1], kid="twice"),
            to_jwk(issuer.keys["EdDSA"][1], kid="twice", alg="EdDSA", use="sig"),
            to_jwk(OTHER_KEY, kid="ambiguous"),
            to_jwk(issuer.keys["ES256"][1], kid="ambiguous"),
            to_jwk(rsa_key, kid="rs512", alg="RS512"),
            to_jwk(WEAK_RSA_KEY, kid="weak"),
            to_jwk(P384_KEY, kid="p384", alg="ES256"),
            to_jwk(rsa_key, kid="mismatch", alg="ES256"),
            {"kty": "RSA", "kid": "private", **private_jwk()},
            {"kty": "unknown", "kid": "unknown"},
            "not a key",
        )
        yield issuer


def private_jwk() -> dict[str, Any]:
    """The members of an RSA key, with those that should be private."""
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(WEAK_RSA_KEY, as_dict=True)
    return {name: value for name, value in jwk.items() if name != "key_ops"}


@pytest.fixture
def verifier(make_settings: MakeSettings, issuer: Issuer) -> TokenVerifier:
    """A verifier without keys: it fetches them for the first token."""
    return TokenVerifier(make_settings(jwt_issuer=issuer.url, jwt_audience=AUDIENCE))


def encode_segment(value: Any) -> str:
    """A segment of a token: JSON or bytes in base64url."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(header: Any, payload: Any, signature: bytes = b"") -> str:
    """A token with any content and any signature."""
    return ".".join(encode_segment(part) for part in (header, payload, signature))


def sign_payload(issuer: Issuer, payload: bytes, **header: Any) -> str:
    """A token with a valid signature of the issuer and any payload."""
    _, key = issuer.keys["ES256"]
    return jwt.api_jws.encode(payload, key, "ES256", {"kid": "ES256", **header})


def sign_with_public_key(issuer: Issuer) -> str:
    """A token with HS256, whose secret is the public key."""
    public_key = issuer.keys["RS256"][1].public_key()
    secret = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "kid": "RS256"}
    signed = f"{encode_segment(header)}.{encode_segment(claims_of(issuer.url))}"
    signature = hmac.new(secret, signed.encode(), sha256).digest()
    return f"{signed}.{encode_segment(signature)}"


def sign_with(key: Any, algorithm: str, key_id: str) -> MakeToken:
    """A function that signs a token with a key that is not one of the issuer's."""
    return lambda issuer: jwt.encode(claims_of(issuer.url), key, algorithm, {"kid": key_id})


def with_claims(**claims: Any) -> MakeToken:
    """A function that makes a token of the issuer with these claims."""
    return lambda issuer: issuer.sign("ES256", **claims)


def with_times(**seconds: float) -> MakeToken:
    """A function that makes a token of the issuer with these times, in seconds from now."""

    def sign(issuer: Issuer) -> str:
        now = int(time())
        times: dict[str, Any] = {name: now + offset for name, offset in seconds.items()}
        return issuer.sign("ES256", **times)

    return sign


def with_header(**header: Any) -> MakeToken:
    """A function that makes a token of the issuer with these members of its header."""
    return lambda issuer: issuer.sign("ES256", header=header)


def without_key_id(algorithm: str) -> MakeToken:
    """A function that makes a token without `kid`."""
    return lambda issuer: jwt.encode(claims_of(issuer.url), issuer.keys[algorithm][1], algorithm)


def with_tampered_payload(issuer: Issuer) -> str:
    header, _, signature = issuer.sign("ES256").split(".")
    return f"{header}.{encode_segment(claims_of(issuer.url, sub='admin'))}.{signature}"


VALID_TOKENS: dict[str, MakeToken] = {
    "RS256": lambda issuer: issuer.sign("RS256"),
    "ES256": lambda issuer: issuer.sign("ES256"),
    "EdDSA": lambda issuer: issuer.sign("EdDSA"),
    "no kid, and only one key for the algorithm": without_key_id("EdDSA"),
    "a key that is listed twice": lambda issuer: issuer.sign("EdDSA", header={"kid": "twice"}),
    "one of several audiences": with_claims(aud=["other-api", AUDIENCE]),
    "expired within the leeway": with_times(exp=-5),
    "not before, within the leeway": with_times(nbf=5),
    "no time of issue": with_claims(iat=None),
    "a far end": with_claims(exp=10**300),
    "a fraction of a second": with_times(exp=60.5),
    "the longest subject": with_claims(sub="s" * 255),
    "a key in the header, which is ignored": with_header(
        jwk=to_jwk(OTHER_KEY), jku="https://attacker.example/", x5u="file:///etc/passwd", x5c=["x"]
    ),
    "the type of RFC 9068": with_header(typ="at+jwt"),
}
REFUSED_TOKENS: dict[str, tuple[MakeToken, str]] = {
    "alg none": (lambda i: forge({"alg": "none"}, claims_of(i.url)), ALGORITHM),
    "alg None": (lambda i: forge({"alg": "None", "kid": "ES256"}, claims_of(i.url)), ALGORITHM),
    "alg missing": (lambda i: forge({"kid": "ES256"}, claims_of(i.url)), ALGORITHM),
    "alg a list": (lambda i: forge({"alg": ["ES256"]}, claims_of(i.url)), ALGORITHM),
    "HS256 with the public key": (sign_with_public_key, ALGORITHM),
    "HS256 with the secret in the key set": (
        sign_with(b"secret", "HS256", "secret"),
        ALGORITHM,
    ),
    "RS512": (sign_with(generate_key("RS256"), "RS512", "rs512"), ALGORITHM),
    "a key of the attacker": (sign_with(OTHER_KEY, "ES256", "ES256"), NOT_VALID),
    "a key of the attacker in the header": (
        lambda i: jwt.encode(
            claims_of(i.url), OTHER_KEY, "ES256", {"kid": "ES256", "jwk": to_jwk(OTHER_KEY)}
        ),
        NOT_VALID,
    ),
    "a key for encryption": (sign_with(OTHER_KEY, "ES256", "encryption"), UNKNOWN_KEY),
    "a weak key": (sign_with(WEAK_RSA_KEY, "RS256", "weak"), NOT_VALID),
    "a private key in the key set": (sign_with(WEAK_RSA_KEY, "RS256", "private"), UNKNOWN_KEY),
    "a key of another curve": (sign_with(OTHER_KEY, "ES256", "p384"), NOT_VALID),
    "a key for another algorithm": (sign_with(OTHER_KEY, "ES256", "mismatch"), UNKNOWN_KEY),
    "the kid of another algorithm": (sign_with(OTHER_KEY, "ES256", "RS256"), UNKNOWN_KEY),
    "the kid of two different keys": (sign_with(OTHER_KEY, "ES256", "ambiguous"), UNKNOWN_KEY),
    "an unknown kid": (sign_with(OTHER_KEY, "ES256", "unknown"), UNKNOWN_KEY),
    "an empty kid": (sign_with(OTHER_KEY, "ES256", ""), UNKNOWN_KEY),
    "a kid that is a number": (
        lambda i: forge({"alg": "ES256", "kid": 1}, claims_of(i.url)),
        NOT_VALID,
    ),
    "no kid, and several keys for the algorithm": (without_key_id("RS256"), UNKNOWN_KEY),
    "no signature": (
        lambda i: forge({"alg": "ES256", "kid": "ES256"}, claims_of(i.url)),
        NOT_VALID,
    ),
    "a tampered payload": (with_tampered_payload, NOT_VALID),
    "a critical extension": (with_header(crit=["exp"], exp=1), NOT_VALID),
    "a detached payload": (
        lambda i: forge({"alg": "ES256", "kid": "ES256", "b64": False, "crit": ["b64"]}, b""),
        NOT_VALID,
    ),
    "another issuer": (with_claims(iss="https://attacker.example"), ISSUER_REASON),
    "the issuer with a slash": (lambda i: i.sign("ES256", iss=f"{i.url}/"), ISSUER_REASON),
    "no issuer": (with_claims(iss=None), NOT_VALID),
    "another audience": (with_claims(aud="other-api"), AUDIENCE_REASON),
    "a longer audience": (with_claims(aud=f"{AUDIENCE}-2"), AUDIENCE_REASON),
    "no audience": (with_claims(aud=None), NOT_VALID),
    "an empty list of audiences": (with_claims(aud=[]), NOT_VALID),
    "a nested list of audiences": (with_claims(aud=[[AUDIENCE]]), AUDIENCE_REASON),
    "an object as the audience": (with_claims(aud={AUDIENCE: 1}), AUDIENCE_REASON),
    "expired": (with_times(exp=-LEEWAY_SECONDS - 1), EXPIRED),
    "expired in 1970": (with_claims(exp=0), EXPIRED),
    "no end": (with_claims(exp=None), NOT_VALID),
    "an end that is not a number": (with_claims(exp="tomorrow"), NOT_VALID),
    "an infinite end": (lambda i: sign_payload(i, end_of(i, b"1e999")), NOT_VALID),
    "an end that is NaN": (lambda i: sign_payload(i, end_of(i, b"NaN")), NOT_VALID),
    "an end of 5,000 digits": (lambda i: sign_payload(i, end_of(i, b"9" * 5000)), NOT_VALID),
    "an end that is a list": (with_claims(exp=[1]), NOT_VALID),
    "not before a later time": (with_times(nbf=LEEWAY_SECONDS + 60), NOT_YET),
    "issued in the future": (with_times(iat=LEEWAY_SECONDS + 60), NOT_YET),
    "no subject": (with_claims(sub=None), NOT_VALID),
    "an empty subject": (with_claims(sub=""), SUBJECT_REASON),
    "a subject that is too long": (with_claims(sub="s" * 256), SUBJECT_REASON),
    "a subject with a line feed": (with_claims(sub="user\n1"), SUBJECT_REASON),
    "a subject that UTF-8 cannot encode": (with_claims(sub="\ud800"), SUBJECT_REASON),
    "a subject that is a number": (with_claims(sub=1), NOT_VALID),
    "a payload that is not JSON": (lambda i: sign_payload(i, b"not JSON"), NOT_VALID),
    "a payload that is a list": (lambda i: sign_payload(i, b"[]"), NOT_VALID),
    "a payload that is not UTF-8": (lambda i: sign_payload(i, b"\xff\xfe\xfd"), NOT_VALID),
    "a payload that is nested deeply": (
        lambda i: sign_payload(i, b"[" * 100_000 + b"]" * 100_000),
        NOT_VALID,
    ),
    "a header that is a list": (lambda i: forge(["ES256"], claims_of(i.url)), NOT_VALID),
    "two segments": (lambda i: i.sign("ES256").rpartition(".")[0], NOT_VALID),
    "five segments": (lambda i: f"{i.sign('ES256')}.a.b", NOT_VALID),
    "an opaque token": (lambda _: "2YotnFZFEjr1zCsicMWpAA", NOT_VALID),
    "not ASCII": (lambda i: f"{i.sign('ES256')}\xe9", NOT_VALID),
    "two tokens": (lambda i: f"{i.sign('ES256')} {i.sign('ES256')}", NOT_VALID),
    "a large token": (lambda i: f"{i.sign('ES256')}{'A' * 1_000_000}", NOT_VALID),
}


def end_of(issuer: Issuer, end: bytes) -> bytes:
    """The claims of a token with any text as the value of `exp`."""
    claims = json.dumps(claims_of(issuer.url, exp=None)).encode()
    return claims.removesuffix(b"}") + b', "exp": ' + end + b"}"


@pytest.mark.parametrize("name", VALID_TOKENS)
async def test_a_token_of_the_issuer_is_accepted(
    verifier: TokenVerifier, issuer: Issuer, name: str
) -> None:
    caller = await verifier.verify(VALID_TOKENS[name](issuer))
    assert caller.issuer == issuer.url
    assert caller.subject in (SUBJECT, "s" * 255)


# The test signs with keys that are too weak.
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("name", REFUSED_TOKENS)
async def test_any_other_token_is_refused(
    verifier: TokenVerifier, issuer: Issuer, name: str
) -> None:
    make_token, reason = REFUSED_TOKENS[name]
    token = make_token(issuer)
    for _ in range(2):  # A refusal must not depend on what the verifier remembers.
        with pytest.raises(TokenRefusedError) as error_info:
            await verifier.verify(token)
        assert str(error_info.value) == reason


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()),
        ({"scope": "things:read  things:write"}, {"things:read", "things:write"}),
        ({"scp": "things:read things:write"}, {"things:read", "things:write"}),  # Entra ID
        ({"scp": ["things:read", "things:write"]}, {"things:read", "things:write"}),  # Okta
        ({"scope": "a", "scp": "b"}, {"a", "b"}),
        ({"scope": ["a", 1, ["b"], None]}, {"a"}),
        ({"scope": {"a": 1}, "scp": 1}, set()),
        ({"scope": None}, set()),
        ({"roles": ["a"], "permissions": ["b"], "scopes": "c"}, set()),
    ],
)
async def test_scopes_are_words_or_lists_in_two_claims(
    verifier: TokenVerifier, issuer: Issuer, claims: dict[str, Any], scopes: set[str]
) -> None:
    caller = await verifier.verify(issuer.sign("ES256", **claims))
    assert caller.scopes == scopes


async def test_a_caller_has_all_claims_of_the_token(
    verifier: TokenVerifier, issuer: Issuer
) -> None:
    caller = await verifier.verify(issuer.sign("ES256", email="a@example.com"))
    assert caller.claims["email"] == "a@example.com"


async def test_a_token_is_verified_once(
    verifier: TokenVerifier, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.sign("ES256")
    caller = await verifier.verify(token)
    monkeypatch.delattr(jwt, "decode")
    assert await verifier.verify(token) is caller


async def test_a_remembered_token_expires(
    verifier: TokenVerifier, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = with_times(exp=-5)(issuer)
    await verifier.verify(token)
    monkeypatch.setattr(access_tokens, "time", lambda: time() + LEEWAY_SECONDS)
    monkeypatch.setattr(access_tokens, "LEEWAY_SECONDS", 0)
    with pytest.raises(TokenRefusedError, match="expired"):
        await verifier.verify(token)


async def test_a_remembered_token_is_verified_again_with_new_keys(
    verifier: TokenVerifier, issuer: Issuer
) -> None:
    token = issuer.sign("ES256")
    await verifier.verify(token)
    [rsa_key] = [key for key in verifier.signing_keys.current_keys if key.key_id == "RS256"]
    verifier.signing_keys.current_keys = [rsa_key]
    with pytest.raises(TokenRefusedError, match="unknown key"):
        await verifier.verify(token)


async def test_the_number_of_remembered_tokens_is_bounded(
    verifier: TokenVerifier, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest one is forgotten, and is verified again."""
    monkeypatch.setattr(access_tokens, "MAX_VERIFIED_TOKENS", 2)
    tokens = [issuer.sign("ES256", jti=str(number)) for number in range(3)]
    callers = [await verifier.verify(token) for token in tokens]
    assert await verifier.verify(tokens[2]) is callers[2]
    assert await verifier.verify(tokens[1]) is callers[1]
    assert await verifier.verify(tokens[0]) is not callers[0]
