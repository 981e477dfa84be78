"""Each invalid setting is reported in one line without its value, and the exit code is 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastapi_k8s import NAME
from fastapi_k8s.settings import load_settings

URL = "postgresql://user:hidden@db/name"


def read_errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Load the settings, which must fail, and return the lines below the heading."""
    with pytest.raises(SystemExit) as exit_info:
        load_settings()
    assert exit_info.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hidden" not in captured.err
    assert "Value error" not in captured.err
    return captured.err.splitlines()[1:]


def test_a_missing_setting_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_errors(capsys) == ["  DATABASE_URL: Field required"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "hidden"),
        ("DATABASE_URL", "mysql://user:hidden@db/name"),
        ("DATABASE_URL", "postgresql://user:hidden@db:port/name"),
        ("DATABASE_URL", "postgresql://user:hidden@db:0/name"),
        ("DATABASE_URL", "postgresql://user:hidden@[db/name"),
        ("DATABASE_URL", f"{URL}?sslmode=hidden"),
        ("REDIS_URL", "http://:hidden@cache"),
        ("REDIS_URL", "redis://:hidden@cache:port"),
        ("REDIS_URL", "redis://:hidden@cache?socket_timeout=hidden"),
        ("REDIS_URL", "redis://:hidden@cache?unknown=hidden"),
        ("ENVIRONMENT", "hidden"),
        ("API_DOCS", "hidden"),
        ("LOG_LEVEL", "hidden"),
        ("DATABASE_POOL_SIZE", "hidden"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_POOL_TIMEOUT", "0"),
        ("DATABASE_STATEMENT_TIMEOUT", "-1"),
        ("REDIS_TIMEOUT", "nan"),
        ("CACHE_TTL", "0"),
        ("IDEMPOTENCY_TTL", "1.5"),
        ("MAX_BODY_SIZE", "0"),
        ("JWT_ISSUER", "hidden"),
        ("JWT_ISSUER", "file:///hidden"),
        ("JWT_ISSUER", "https://"),
        ("JWT_ISSUER", "https://issuer.example/hidden realm"),
        ("JWT_ISSUER", "https://issuer.example/hidden "),
        ("JWT_ISSUER", "https://[hidden"),
        ("JWT_JWKS_URL", "hidden"),
        ("JWT_JWKS_URL", "https://issuer.example:0/hidden"),
        ("ROOT_PATH", "hidden"),
        ("ROOT_PATH", "/hidden/"),
        ("ROOT_PATH", "//hidden"),
        ("ROOT_PATH", "/hidden path"),
        ("ROOT_PATH", "/hidden?"),
        ("ROOT_PATH", "/hidden/caf\xe9"),
    ],
)
def test_an_invalid_value_is_reported_by_the_name_of_its_setting(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv(name, value)
    [line] = read_errors(capsys)
    assert line.startswith(f"  {name}: ")


@pytest.mark.parametrize(
    "origin",
    [
        "https://hidden.example/",
        "https://hidden.example/path",
        "https://hidden.example?query",
        "https://hidden.example#fragment",
        "hidden.example",
        "//hidden.example",
        "https://",
        "null",
        "https://Hidden.example",
        "HTTPS://hidden.example",
        "https://hidden.example:443",
        "http://hidden.example:80",
        "https://hidden.example:port",
        "https://hidden.example:99999",
        "https://user@hidden.example",
        "https://[hidden.example",
        "https://hiddén.example",
        "https://hidden.example https://b.example",
        "https://b.example, https://hidden.example/",
        '["https://hidden.example"]',
    ],
)
def test_a_cors_origin_that_no_browser_sends_is_refused_with_an_example(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    origin: str,
) -> None:
    """Such an origin would silently never match."""
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("CORS_ORIGINS", origin)
    [line] = read_errors(capsys)
    assert line.startswith("  CORS_ORIGINS: must be origins as browsers send them")
    assert "such as https://app.example.com" in line
    for hint in ("lower case", "no path", "no trailing slash", "no default port"):
        assert hint in line


def test_each_invalid_setting_has_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CACHE_TTL", "LOG_LEVEL"):
        monkeypatch.setenv(name, "hidden")
    names = [line.split(":")[0].strip() for line in read_errors(capsys)]
    assert names == ["DATABASE_URL", "CACHE_TTL", "LOG_LEVEL"]


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
@pytest.mark.parametrize("password", ["postgres", "development", "changeme", ""])
def test_only_production_refuses_a_password_for_development(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    password: str,
) -> None:
    scheme = {"DATABASE_URL": "postgresql", "REDIS_URL": "redis"}[name]
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv(name, f"{scheme}://user:{password}@host/0")
    assert load_settings().environment == "development"
    monkeypatch.setenv("ENVIRONMENT", "production")
    [line] = read_errors(capsys)
    assert line.startswith(f"  {name}: ")
    assert "password for development" in line


@pytest.mark.parametrize("name", ["JWT_ISSUER", "JWT_JWKS_URL"])
def test_only_development_accepts_the_keys_of_an_issuer_without_tls(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("JWT_ISSUER", "https://issuer.example")
    monkeypatch.setenv("JWT_AUDIENCE", "api")
    monkeypatch.setenv(name, "http://localhost:8080/realms/one")
    assert load_settings().jwt_audience == "api"
    monkeypatch.setenv("ENVIRONMENT", "production")
    [line] = read_errors(capsys)
    assert line.startswith(f"  {name}: must be a URL with https://")


@pytest.mark.parametrize("name", ["JWT_ISSUER", "JWT_AUDIENCE"])
def test_an_issuer_needs_an_audience_and_the_other_way_round(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Tokens for other services of the issuer must not be accepted, and a typing error in the name
    of a setting must not turn authentication off."""
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv(name, "https://issuer.example")
    [line] = read_errors(capsys)
    assert line == "  JWT_AUDIENCE: must be set if JWT_ISSUER is set, and only then"


@pytest.mark.parametrize("package", ["jwt", "cryptography"])
def test_an_issuer_needs_the_packages_of_the_extra(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: str,
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("JWT_ISSUER", "https://issuer.example")
    monkeypatch.setenv("JWT_AUDIENCE", "api")
    assert load_settings().jwt_issuer == "https://issuer.example"
    monkeypatch.setitem(sys.modules, package, None)
    [line] = read_errors(capsys)
    assert line == (
        f"  JWT_ISSUER: needs the extra `auth`: install {NAME}[auth],"
        " or build the image with `make docker-build EXTRAS=auth`"
    )


def test_an_env_file_that_is_not_utf_8_is_reported_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".env").write_bytes(b"DATABASE_URL=hidden\xff")
    [line] = read_errors(capsys)
    assert ".env" in line


def test_a_secret_file_that_is_not_utf_8_is_reported_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "secrets" / "database_url").write_bytes(b"hidden\xff")
    [line] = read_errors(capsys)
    assert str(folder / "secrets") in line


def test_an_unreadable_secret_file_is_reported_in_one_line(folder: Path) -> None:
    secret = folder / "secrets" / "database_url"
    secret.write_text(URL)
    secret.chmod(0)
    script = (
        "import pathlib; from fastapi_k8s import settings; "
        "settings.SECRETS_DIR = pathlib.Path('secrets'); settings.load_settings()"
    )
    command = [sys.executable, "-c", script]
    if os.geteuid() == 0:
        # Root can read every file, unless it drops its capabilities.
        command = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", *command]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    [_, line] = process.stderr.splitlines()
    assert "database_url" in line
