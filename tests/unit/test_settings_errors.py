"""Wrong settings end the process with exit code 2 and a line for each, and show no value."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastapi_k8s.settings import load_settings

URL = "postgresql://user:hidden@db/name"


def complaints(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Load the settings, which must be refused; give the line for each that is wrong."""
    with pytest.raises(SystemExit) as caught:
        load_settings()
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "hidden" not in printed.err
    return printed.err.splitlines()[1:]


def test_a_missing_setting_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert complaints(capsys) == ["  DATABASE_URL: Field required"]


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
        ("ENVIRONMENT", "hidden"),
        ("LOG_LEVEL", "hidden"),
        ("DATABASE_POOL_SIZE", "hidden"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_POOL_TIMEOUT", "0"),
        ("DATABASE_STATEMENT_TIMEOUT", "-1"),
        ("REDIS_TIMEOUT", "nan"),
        ("CACHE_TTL", "0"),
        ("IDEMPOTENCY_TTL", "1.5"),
        ("MAX_BODY_SIZE", "0"),
        ("ROOT_PATH", "hidden"),
        ("ROOT_PATH", "/hidden/"),
    ],
)
def test_a_bad_value_is_told_by_its_name_alone(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv(name, value)
    [line] = complaints(capsys)
    assert line.startswith(f"  {name}: ")


def test_each_bad_value_has_its_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CACHE_TTL", "LOG_LEVEL"):
        monkeypatch.setenv(name, "hidden")
    names = [line.split(":")[0].strip() for line in complaints(capsys)]
    assert names == ["DATABASE_URL", "CACHE_TTL", "LOG_LEVEL"]


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
@pytest.mark.parametrize("password", ["postgres", "development", "changeme", ""])
def test_production_refuses_a_password_for_development(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    password: str,
) -> None:
    scheme = name.removesuffix("_URL").replace("DATABASE", "postgresql").lower()
    wanted = {"DATABASE_URL": URL, name: f"{scheme}://user:{password}@host/0"}
    for each, value in wanted.items():
        monkeypatch.setenv(each, value)
    load_settings()  # in development it is right
    monkeypatch.setenv("ENVIRONMENT", "production")
    [line] = complaints(capsys)
    assert line.startswith(f"  {name}: ")
    assert "password for development" in line


def test_an_undecodable_env_file_is_one_clear_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".env").write_bytes(b"DATABASE_URL=hidden\xff")
    [line] = complaints(capsys)
    assert ".env" in line


def test_an_undecodable_secret_file_is_one_clear_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "secrets" / "database_url").write_bytes(b"hidden\xff")
    [line] = complaints(capsys)
    assert str(folder / "secrets") in line


def test_an_unreadable_secret_file_is_one_clear_line(folder: Path) -> None:
    secret = folder / "secrets" / "database_url"
    secret.write_text(URL)
    secret.chmod(0)
    # Root may read it all the same, unless root has given up its capabilities.
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    script = (
        "import pathlib; from fastapi_k8s import settings; "
        "settings.SECRETS_DIR = pathlib.Path('secrets'); settings.load_settings()"
    )
    command = [*powerless, sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    [_, line] = done.stderr.splitlines()
    assert "database_url" in line
