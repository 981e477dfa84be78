"""asyncpg gets the URL of the database without the options that it does not know."""

import pytest

from fastapi_k8s.database import asyncpg_dsn
from tests.conftest import MakeSettings


@pytest.mark.parametrize(
    "url", ["postgresql://db/name", "postgres://u:p%40ss@db:1/name?sslmode=require"]
)
def test_a_url_with_supported_options_is_unchanged(make_settings: MakeSettings, url: str) -> None:
    assert asyncpg_dsn(make_settings(database_url=url)) == url


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("postgresql://db/name?channel_binding=require", "postgresql://db/name"),
        ("postgresql://db/x?connect_timeout=3&sslmode=prefer", "postgresql://db/x?sslmode=prefer"),
    ],
)
def test_unsupported_options_are_removed(make_settings: MakeSettings, url: str, dsn: str) -> None:
    assert asyncpg_dsn(make_settings(database_url=url)) == dsn
