"""DATABASE_URL accepts what asyncpg can fulfil, and refuses all other options by their names."""

import shutil
from pathlib import Path
from urllib.parse import quote

import certifi
import pytest

from fastapi_k8s.database import connect_arguments
from fastapi_k8s.database_url import parse_database_url
from tests.conftest import MakeSettings


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db/name",
        "postgres://u:p%40ss@db:1/name?sslmode=require",
        "postgresql://u:p@[::1]:5432/name",
        "postgresql://u:p@a:5432,b:5433/name?target_session_attrs=read-write",
        "postgresql://u:p@a,b/name?target_session_attrs=primary",
        "postgresql://u:p@/name?host=%2Frun%2Fpostgresql",
        "postgresql://u:p@/name?host=%2Fcloudsql%2Fproject%3Aregion%3Ainstance",
        "postgresql://u@/name?host=a%2Cb&port=5432%2C5433",
        "postgresql://u@db/name?application_name=orders&options=endpoint%3Dcool-darkness-123456",
        "postgresql://u@db/name?sslnegotiation=direct&sslmode=require",
    ],
)
def test_options_that_asyncpg_implements_are_passed_unchanged(url: str) -> None:
    assert parse_database_url(url).dsn == url


@pytest.mark.parametrize(
    "options",
    [
        "connect_timeout=10&channel_binding=require",
        "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5",
        "pgbouncer=true&connection_limit=1&pool_timeout=0",
        "supa=base-pooler.x",
        "client_encoding=utf8&gssencmode=disable",
        "sslmode=",
    ],
)
def test_options_without_effect_are_removed(options: str) -> None:
    url = f"postgresql://db/name?{options}&application_name=x"
    assert parse_database_url(url).dsn == "postgresql://db/name?application_name=x"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("schema=hidden", "has the option schema, .*: use options=-csearch_path%3DNAME"),
        ("search_path=hidden", "has the option search_path, .*: use options="),
        ("hostaddr=hidden", "has the option hostaddr, .*: use host"),
        ("ssl=true", "has the option ssl, .*: use sslmode=require"),
        ("require_auth=scram-sha-256", "has the option require_auth, "),
        ("unknown=hidden", "has the option unknown, .*: remove it"),
        ("sslmode=no-verify", "sslmode must be one of allow, .*verify-full"),
        ("target_session_attrs=hidden", "target_session_attrs must be one of any, "),
        ("gssencmode=require", "gssencmode must be one of disable, prefer"),
        ("client_encoding=latin1", "client_encoding must be one of "),
        ("port=hidden", "port must be a number"),
        ("port=65536", "port must be a number"),
        ("hidden", "must have options in the form name=value"),
        ("sslrootcert=/missing/ca.pem", "sslrootcert cannot be loaded: No such file"),
        ("sslcrl=/missing/crl.pem", "sslcrl cannot be loaded: No such file"),
        ("sslcert=/missing/client.pem", "sslcert or sslkey cannot be loaded: No such file"),
        ("sslrootcert=system&sslmode=require", "sslrootcert=system needs sslmode=verify-full"),
        ("sslrootcert=system&sslcrl=x", "sslcrl does not work with sslrootcert=system"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name_with_an_alternative(
    options: str, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as error_info:
        parse_database_url(f"postgresql://user:hidden@db/name?{options}")
    assert "hidden" not in str(error_info.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hidden@db:0/name",
        "postgresql://user:hidden@db:65536/name",
        "postgresql://user:hidden@a:5432,b:port/name",
        "postgresql://user:hidden@a,,b/name",
        "postgresql://user:hidden@db/name?host=a:port",
        "postgresql://user:hidden@db/name#fragment",
        "postgresql://user:hidden?a=b@db/name",
        "postgresql://user:hidden@[::1/name",
        "postgresql+asyncpg://user:hidden@db/name",
        "postgresql://user:hid@den@db/name",
    ],
)
def test_a_malformed_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(must be a URL such as|write the @ )") as error_info:
        parse_database_url(url)
    assert "hid" not in str(error_info.value)


def test_a_certificate_file_that_can_be_loaded_is_passed(tmp_path: Path) -> None:
    """A space in its path is encoded as libpq reads it."""
    file = tmp_path / "root certificate.pem"
    shutil.copy(certifi.where(), file)
    url = f"postgresql://db/name?sslmode=verify-full&sslrootcert={quote(str(file), safe='')}"
    assert parse_database_url(url).dsn == url


def test_with_the_certificates_of_the_system_the_certificate_is_verified(
    make_settings: MakeSettings,
) -> None:
    """asyncpg would look for a file `system`. Its `ssl=True` means sslmode=verify-full."""
    url = "postgresql://db/name?sslmode=verify-full&sslrootcert=system"
    arguments = connect_arguments(make_settings(database_url=url))
    assert arguments == {"dsn": "postgresql://db/name", "ssl": True}


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgresql://db/name", None),
        ("postgresql://user@db/name", None),
        ("postgresql://user:@db/name", ""),
        ("postgresql://user:%70ostgres@db/name", "postgres"),
        ("postgresql://user@db/name?password=postgres", "postgres"),
        ("postgresql://user:@db/name?password=postgres", "postgres"),
        ("postgresql://user:a@db/name?password=b", "a"),
    ],
)
def test_the_password_is_the_one_that_asyncpg_uses(url: str, password: str | None) -> None:
    assert parse_database_url(url).password == password
