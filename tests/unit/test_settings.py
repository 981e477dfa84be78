"""Where settings come from, which values are accepted, and that secrets are never shown."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from fastapi_k8s.settings import load_settings
from tests.conftest import MakeSettings

URL = "postgresql://user:hidden@db/name"


def test_settings_come_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("CACHE_TTL", "77")
    settings = load_settings()
    assert (settings.database_url.get_secret_value(), settings.cache_ttl) == (URL, 77)


def test_settings_come_from_an_env_file(folder: Path) -> None:
    (folder / ".env").write_text(f"DATABASE_URL={URL}\n# a comment\nCACHE_TTL=77\n")
    settings = load_settings()
    assert (settings.database_url.get_secret_value(), settings.cache_ttl) == (URL, 77)


def test_settings_come_from_secret_files(folder: Path) -> None:
    (folder / "secrets" / "database_url").write_text(f"{URL}\n")
    assert load_settings().database_url.get_secret_value() == URL


def test_the_environment_overrides_the_env_file_which_overrides_secret_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    (folder / "secrets" / "cache_ttl").write_text("1")
    assert load_settings().cache_ttl == 1
    (folder / ".env").write_text("CACHE_TTL=2")
    assert load_settings().cache_ttl == 2
    monkeypatch.setenv("CACHE_TTL", "3")
    assert load_settings().cache_ttl == 3


def test_the_folder_of_secret_files_is_optional(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "secrets").rmdir()
    monkeypatch.setenv("DATABASE_URL", URL)
    assert load_settings().database_url.get_secret_value() == URL


def test_variables_of_other_programs_are_ignored(folder: Path) -> None:
    (folder / ".env").write_text(f"DATABASE_URL={URL}\nEDITOR=vi\n")
    assert not hasattr(load_settings(), "editor")


def test_settings_cannot_be_changed(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.cache_ttl = 1  # type: ignore[misc]


def test_secrets_are_not_shown(make_settings: MakeSettings) -> None:
    settings = make_settings(redis_url="redis://:hidden@cache")
    assert "hidden" in settings.database_url.get_secret_value()
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hidden" not in text


@pytest.mark.parametrize("name", ["database_url", "redis_url"])
def test_errors_do_not_show_the_value(make_settings: MakeSettings, name: str) -> None:
    with pytest.raises(ValidationError) as error_info:
        make_settings(**{name: "http://user:hidden@db/name"})
    message = str(error_info.value)
    assert name in message
    assert "hidden" not in message


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("database_url", "postgres://user:hidden@db:5432/name?sslmode=require"),
        ("database_url", "postgresql://db/name?sslmode=verify-full&sslrootcert=system"),
        ("redis_url", "redis://:hidden@cache:6379/1"),
        ("redis_url", "rediss://user:hidden@cache"),
        ("redis_url", "unix:///run/redis.sock"),
        ("redis_url", ""),
    ],
)
def test_urls_in_the_forms_of_hosting_providers_are_accepted(
    make_settings: MakeSettings, name: str, url: str
) -> None:
    settings = make_settings(**{name: url})
    assert getattr(settings, name).get_secret_value() == url


def test_production_accepts_a_password_that_is_not_for_development(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(environment="production", redis_url="redis://:hidden@cache")
    assert settings.environment == "production"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("database_url", "postgresql://user:@db/name"),
        ("database_url", "postgresql://user:postgres@db/name"),
        ("database_url", "postgresql://user:%70ostgres@db/name"),
        ("database_url", "postgresql://user@db/name?password=postgres"),
        ("database_url", "postgresql://user:@db/name?password=changeme"),
        ("redis_url", "redis://:@cache"),
        ("redis_url", "redis://:%73ecret@cache"),
        ("redis_url", "redis://cache?password=secret"),
    ],
)
def test_production_refuses_a_password_for_development_however_it_is_written(
    make_settings: MakeSettings, name: str, url: str
) -> None:
    with pytest.raises(ValidationError, match="password for development, in production"):
        make_settings(environment="production", **{name: url})


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", ()),
        ("https://app.example.com", ("https://app.example.com",)),
        ("https://a.example,https://b.example", ("https://a.example", "https://b.example")),
        (" https://a.example , https://b.example ", ("https://a.example", "https://b.example")),
        ("https://a.example,", ("https://a.example",)),
        ("http://localhost:3000", ("http://localhost:3000",)),
        ("https://app.example.com:8443", ("https://app.example.com:8443",)),
        ("http://app.example.com:443", ("http://app.example.com:443",)),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("*", ("*",)),
    ],
)
def test_cors_origins_are_a_comma_separated_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: str, origins: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("CORS_ORIGINS", value)
    assert load_settings().cors_origins == origins


def test_cors_origins_can_be_a_list_in_code(make_settings: MakeSettings) -> None:
    settings = make_settings(cors_origins=["https://a.example", "https://b.example"])
    assert settings.cors_origins == ("https://a.example", "https://b.example")
