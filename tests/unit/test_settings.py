"""Where settings come from, and what they refuse to give away."""

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


def test_the_environment_beats_the_env_file_which_beats_secret_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    (folder / "secrets" / "cache_ttl").write_text("1")
    assert load_settings().cache_ttl == 1
    (folder / ".env").write_text("CACHE_TTL=2")
    assert load_settings().cache_ttl == 2
    monkeypatch.setenv("CACHE_TTL", "3")
    assert load_settings().cache_ttl == 3


def test_a_folder_for_secrets_is_not_required(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "secrets").rmdir()
    monkeypatch.setenv("DATABASE_URL", URL)
    assert load_settings().database_url.get_secret_value() == URL


def test_variables_of_other_programs_are_ignored(folder: Path) -> None:
    (folder / ".env").write_text(f"DATABASE_URL={URL}\nEDITOR=vi\n")
    assert not hasattr(load_settings(), "editor")


def test_settings_cannot_be_changed(make_settings: MakeSettings) -> None:
    settings, field = make_settings(), "cache_ttl"
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, field, 1)


def test_secrets_are_not_shown(make_settings: MakeSettings) -> None:
    settings = make_settings(redis_url="redis://:hidden@cache")
    assert "hidden" in settings.database_url.get_secret_value()
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hidden" not in shown


@pytest.mark.parametrize("name", ["database_url", "redis_url"])
def test_errors_do_not_show_what_was_given(make_settings: MakeSettings, name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make_settings(**{name: "http://user:hidden@db/name"})
    assert name in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("database_url", "postgres://user:hidden@db:5432/name?sslmode=require"),
        ("database_url", "postgresql://db/name?sslmode=verify-full&sslrootcert=/ca.pem"),
        ("redis_url", "redis://:hidden@cache:6379/1"),
        ("redis_url", "rediss://user:hidden@cache"),
        ("redis_url", "unix:///run/redis.sock"),
        ("redis_url", ""),
    ],
)
def test_urls_as_providers_print_them_are_accepted(
    make_settings: MakeSettings, name: str, url: str
) -> None:
    assert getattr(make_settings(**{name: url}), name).get_secret_value() == url


def test_production_accepts_a_password_of_its_own(make_settings: MakeSettings) -> None:
    settings = make_settings(environment="production", redis_url="redis://:hidden@cache")
    assert settings.environment == "production"
